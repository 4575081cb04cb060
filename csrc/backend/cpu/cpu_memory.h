// Host memory of the CPU backend: 64-byte aligned, as the kernels demand it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

namespace gemtp {

inline constexpr std::align_val_t kAlign{64};

struct AlignedDeleter {
  void operator()(uint8_t* p) const { ::operator delete[](p, kAlign); }
};
using Bytes = std::unique_ptr<uint8_t[], AlignedDeleter>;

inline Bytes allocate(int64_t n) {
  return Bytes(static_cast<uint8_t*>(
      ::operator new[](static_cast<size_t>(std::max<int64_t>(n, 64)), kAlign)));
}

/// Room for n values of T; grows, never shrinks.
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
