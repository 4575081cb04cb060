// The kernels as tools/cuda_kernels.py compiled them for CUDA, in this library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace gemtp::gpu::cuda {

/// A kernel as its PTX declares it.
struct KernelEntry {
  const char* name;  // in kernels/list.h
  int module;        // index of the group of kernels that is loaded with it
  int threads;       // of a block
  int argument_bytes;
};

/// The kernels of a module: machine code, or PTX, which the driver compiles.
struct KernelImage {
  int module;
  int capability;  // 10 major + minor, of the oldest GPU that can run it
  bool ptx;
  const uint64_t* data;  // as cuModuleLoadData takes it
  size_t bytes;
};

/// Sorted by name; none in a build without nvcc.
std::span<const KernelEntry> kernel_entries();
std::span<const KernelImage> kernel_images();

}  // namespace gemtp::gpu::cuda
