// The backend of GPUs: operations become launches of the kernels in kernels/.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/gpu/gpu_device.h"

namespace gemtp {

/// `host` packs weights and looks rows of tables up, on the CPU.
std::unique_ptr<Backend> make_gpu_backend(std::shared_ptr<gpu::GpuDevice> device,
                                          std::unique_ptr<Backend> host);

/// Bytes that a GPU backend allocates at most, besides what it is asked for, for passes of `rows`
/// rows through matrices of at most `cols` columns, `wanted` of which go through a head of `vocab`
/// rows.
int64_t gpu_scratch_bytes(int64_t rows, int64_t cols, int64_t wanted, int64_t vocab);

}  // namespace gemtp
