// NVIDIA's GPUs, by CUDA.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/gpu/gpu_device.h"

namespace gemtp::gpu {

struct CudaGpu {
  std::string name;         // "cuda:0"
  std::string description;  // e.g. "NVIDIA GeForce RTX 4060, 8.0 GB, compute capability 8.9"
};

/// Whether this build has the kernels for CUDA.
bool cuda_is_built();

/// The GPUs that the driver finds. Loads the driver; throws as make_cuda_device().
std::vector<CudaGpu> cuda_gpus();

/// Throws Error{kArgument} if the GPU of this number, a driver or the kernels are not here, and
/// Error{kDevice} for a driver or GPU that is too old or fails. Opens nothing.
void check_cuda_gpu(int number);

/// Opens a GPU. Throws as check_cuda_gpu(), and Error{kMemory}. The device may be used by several
/// threads at a time, but launches, send(), fetch() and recordings by one.
std::unique_ptr<GpuDevice> make_cuda_device(int number);

}  // namespace gemtp::gpu
