// The backend of GPUs: operations become launches of the kernels in kernels/.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/gpu/gpu_device.h"

namespace gemtp {

/// `host` packs weights and looks rows of tables up, on the CPU.
std::unique_ptr<Backend> make_gpu_backend(std::unique_ptr<gpu::GpuDevice> device,
                                          std::unique_ptr<Backend> host);

}  // namespace gemtp
