// What a kernel that runs on the emulated device asks of it: to meet the other threads, and to read
// and write, where every access is checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backend/gpu/address.h"

namespace gemtp::gpu {

/// All threads of the block come here before any goes on.
void block_barrier(int line);

/// All lanes of the warp come here before any goes on, and see what the others wrote.
void order_warp(int line);

/// All lanes of a warp come here, each with a value, before any goes on. The last one to come calls
/// `work`, if there is one, with the 32 values; every lane then has them until it next meets.
void* const* warp_meeting(void* value, int line, void (*work)(void* const*));

// Where the host keeps `bytes` bytes at a device address, checked for what is wrong with it.
const void* checked_read(uint64_t address, size_t bytes);
void* checked_write(uint64_t address, size_t bytes);
// The same of shared memory, for an element of an array that lies at `at`.
void check_shared(const void* at, size_t bytes, bool write);
[[noreturn]] void outside_of_shared(int64_t index, int64_t size);

/// An element of memory that can be written.
template <class T>
class Reference {
 public:
  explicit Reference(uint64_t address) : address_(address) {}
  operator T() const {
    T value;
    std::memcpy(&value, checked_read(address_, sizeof(T)), sizeof(T));
    return value;
  }
  const Reference& operator=(const T& value) const {
    std::memcpy(checked_write(address_, sizeof(T)), &value, sizeof(T));
    return *this;
  }
  const Reference& operator=(const Reference& other) const { return *this = static_cast<T>(other); }
  Reference(const Reference&) = default;

 private:
  uint64_t address_;
};

template <class T>
std::conditional_t<std::is_const_v<T>, T, Reference<T>> Global<T>::operator[](int64_t i) const {
  const uint64_t at = address + static_cast<uint64_t>(i) * sizeof(T);
  if constexpr (std::is_const_v<T>)
    return Reference<std::remove_const_t<T>>(at);
  else
    return Reference<T>(at);
}

/// An array in the memory that the threads of a block share.
template <class T, int kSize>
class SharedArray {
 public:
  class Element {
   public:
    explicit Element(T* at) : at_(at) {}
    operator T() const {
      check_shared(at_, sizeof(T), false);
      return *at_;
    }
    const Element& operator=(const T& value) const {
      check_shared(at_, sizeof(T), true);
      *at_ = value;
      return *this;
    }
    const Element& operator=(const Element& other) const { return *this = static_cast<T>(other); }
    Element(const Element&) = default;

   private:
    T* at_;
  };
  Element operator[](int64_t i) {
    if (i < 0 || i >= kSize) outside_of_shared(i, kSize);
    return Element(values_ + i);
  }

 private:
  T values_[kSize];
};

}  // namespace gemtp::gpu
