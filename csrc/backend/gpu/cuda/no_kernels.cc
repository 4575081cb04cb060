// A build without nvcc.
#include "backend/gpu/cuda/kernel_images.h"

namespace gemtp::gpu::cuda {

std::span<const KernelEntry> kernel_entries() { return {}; }
std::span<const KernelImage> kernel_images() { return {}; }

}  // namespace gemtp::gpu::cuda
