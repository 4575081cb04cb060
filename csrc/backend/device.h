// The memory of a backend. The host holds addresses in it and may do arithmetic with them, but only
// operations and explicit copies read and write the memory.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace gemtp {

/// Address of values of T in a backend's memory.
template <class T>
class Device {
 public:
  constexpr Device() = default;  // null
  constexpr explicit Device(T* address) : address_(address) {}
  template <class U>
    requires(std::is_const_v<T> && std::is_same_v<const U, T>)
  constexpr Device(const Device<U>& other) : address_(other.address()) {}

  constexpr Device operator+(int64_t n) const { return Device(address_ + n); }
  constexpr explicit operator bool() const { return address_ != nullptr; }
  constexpr bool operator==(const Device&) const = default;

  /// For use by the backend that owns the memory. For the CPU backend it is a host address.
  constexpr T* address() const { return address_; }

 private:
  T* address_ = nullptr;
};

/// Floats in a backend's memory, freed with the Buffer.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device<float> data, std::shared_ptr<void> memory)
      : data_(data), memory_(std::move(memory)) {}
  Buffer(Buffer&&) = default;
  Buffer& operator=(Buffer&&) = default;

  Device<float> get() const { return data_; }
  explicit operator bool() const { return static_cast<bool>(data_); }

 private:
  Device<float> data_;
  std::shared_ptr<void> memory_;
};

/// Bytes that exist twice, in the host's memory and in the backend's; for the CPU backend both are
/// the same memory.
struct MirroredBytes {
  void* host = nullptr;
  void* device = nullptr;
  std::shared_ptr<void> memory;
};

/// n mirrored values of T. Backend::send() copies the host's values to the backend,
/// Backend::fetch() copies the backend's values to the host.
template <class T>
class Mirror {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Mirror() = default;
  Mirror(MirroredBytes bytes, int64_t n) : bytes_(std::move(bytes)), size_(n) {}
  Mirror(Mirror&&) = default;
  Mirror& operator=(Mirror&&) = default;

  int64_t size() const { return size_; }
  T* host() const { return static_cast<T*>(bytes_.host); }
  T& operator[](int64_t i) const { return host()[i]; }
  Device<T> device() const { return Device<T>(static_cast<T*>(bytes_.device)); }
  explicit operator bool() const { return size_ > 0; }

  /// Appends what tells these values from all others to the shape of a pass that uses them.
  void append_to(std::vector<int64_t>& shape) const {
    for (const void* address : {bytes_.host, bytes_.device})
      shape.push_back(static_cast<int64_t>(reinterpret_cast<intptr_t>(address)));
  }

 private:
  MirroredBytes bytes_;
  int64_t size_ = 0;
};

}  // namespace gemtp
