// Addresses of device memory, as the host keeps them and as kernels' arguments hold them: the same
// eight bytes for every kind of device. Host code can add to them, nothing else.
#pragma once

#include <cstdint>
#include <type_traits>

namespace gemtp::gpu {

template <class T>
class Reference;  // what an emulated kernel reads and writes through: emulated/memory.h

template <class T>
struct Global {
  uint64_t address = 0;

  Global() = default;
  explicit Global(uint64_t at) : address(at) {}
  /// T* to const T*.
  template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
  Global(Global<U> other) : address(other.address) {}

  Global operator+(int64_t n) const {
    return Global(address + static_cast<uint64_t>(n) * sizeof(T));
  }
  explicit operator bool() const { return address != 0; }

  /// Defined for kernels on the emulated device alone. What is constant is read at once.
  std::conditional_t<std::is_const_v<T>, T, Reference<T>> operator[](int64_t i) const;
};

// Vectors of the GPU languages.
struct alignas(8) Words2 {
  uint32_t x, y;
};
struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};

}  // namespace gemtp::gpu
