// Host memory of the CPU backend, aligned to 64 bytes as the kernels require.
#pragma once

#include <cstdint>

#include "base/aligned_memory.h"

namespace gemtp {

using Bytes = AlignedBytes;

inline Bytes allocate(int64_t n) { return allocate_aligned(static_cast<size_t>(n)); }

/// A buffer of n values of T that grows and never shrinks.
template <class T>
class Scratch {
 public:
  T* ensure(int64_t n) {
    if (n > size_) {
      data_ = allocate(n * static_cast<int64_t>(sizeof(T)));
      size_ = n;
    }
    return get();
  }
  T* get() { return reinterpret_cast<T*>(data_.get()); }

 private:
  Bytes data_;
  int64_t size_ = 0;
};

}  // namespace gemtp
