// What all GPUs say when something is not possible. `where`: "cuda:0 (NVIDIA GeForce RTX 4060)".
#pragma once

#include <string>

#include "backend/gpu/gpu_device.h"
#include "base/error.h"

namespace gemtp::gpu {

inline double gigabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

/// what: "its memory".
inline Error no_room(const std::string& where, const char* what, int64_t bytes,
                     GpuDevice::Memory memory) {
  return {ErrorKind::kMemory,
          format("%s has no room in %s: %.3f GB are wanted, and %.3f of %.3f GB are free; use a "
                 "smaller context or a smaller model, close other programs that use the GPU, or "
                 "use the device cpu",
                 where.c_str(), what, gigabytes(bytes), gigabytes(memory.free),
                 gigabytes(memory.total))};
}

inline Error used_in_child(const std::string& where) {
  return {ErrorKind::kDevice,
          format("%s cannot be used in a child of the process that opened it; open the model in "
                 "the child",
                 where.c_str())};
}

/// why: "cuStreamSynchronize gives CUDA_ERROR_ILLEGAL_ADDRESS".
inline std::string failure_of(const std::string& where, const std::string& why) {
  return format("%s has failed: %s; open the model again, or on the device cpu", where.c_str(),
                why.c_str());
}

}  // namespace gemtp::gpu
