// What the GPU backend keeps in a device's memory: matrices, K/V, the routing of experts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/gpu/address.h"
#include "backend/gpu/gpu_device.h"
#include "backend/gpu/kernels/arguments.h"
#include "base/error.h"

namespace gemtp::gpu {

template <class T>
Global<T> global(Device<T> at) {
  return Global<T>(reinterpret_cast<uint64_t>(at.address()));
}

/// Numbers in the arguments of kernels have 32 bits.
inline int32_t narrow(int64_t n) {
  GEMTP_ASSERT(n >= 0 && n <= INT32_MAX);
  return static_cast<int32_t>(n);
}

/// Returns how many parts of `size` cover n.
inline int64_t parts_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

/// Allocates memory of a device, which is released with the last copy.
inline std::shared_ptr<void> reserve(const std::shared_ptr<GpuDevice>& device, int64_t bytes) {
  const uint64_t address = device->allocate(std::max<int64_t>(bytes, 1));
  return {reinterpret_cast<void*>(address),
          [device](void* p) { device->release(reinterpret_cast<uint64_t>(p)); }};
}

/// A matrix in the tiles of backend/cpu/kernels.h.
class GpuMatrix : public Matrix {
 public:
  gemtp_format format = GEMTP_F32;
  PackedMatrix packed{};
  std::shared_ptr<void> memory;

  bool quantized() const { return format > GEMTP_BF16; }
  int64_t strips() const { return parts_of(rows, 32); }
};

inline const GpuMatrix& of(const Matrix* m) { return static_cast<const GpuMatrix&>(*m); }

/// K/V of a layer in the layout of backend/cpu/kernels.h.
class GpuKv : public KvLayer {
 public:
  GpuKv(std::shared_ptr<GpuDevice> device, bool f16) : device_(std::move(device)), f16_(f16) {}

  void allocate() {
    const int64_t element = f16_ ? 2 : 4;
    key_bytes_ = capacity * head_dim * element;
    value_bytes_ = capacity * columns() * 16 * element;
    bytes = kv_heads * (key_bytes_ + value_bytes_);
    keys_ = reserve(device_, kv_heads * key_bytes_);
    values_ = reserve(device_, kv_heads * value_bytes_);
  }
  const char* type() const { return f16_ ? "f16" : "f32"; }
  KvPlace place() const {
    return {Global<uint8_t>(address(keys_)), Global<uint8_t>(address(values_)), key_bytes_,
            value_bytes_, narrow(capacity)};
  }

  int64_t block_bytes() const override {
    return kv_heads * (head_dim + columns() * 16) * 16 * (f16_ ? 2 : 4);
  }
  void get_block(int64_t b, uint8_t* to) const override {
    for_each_part(b, [&](uint64_t at, int64_t n) {
      device_->read(at, to, n);
      to += n;
    });
  }
  void put_block(int64_t b, const uint8_t* from) override {
    for_each_part(b, [&](uint64_t at, int64_t n) {
      device_->write(at, from, n);
      from += n;
    });
  }

 private:
  static uint64_t address(const std::shared_ptr<void>& memory) {
    return reinterpret_cast<uint64_t>(memory.get());
  }
  int64_t columns() const { return parts_of(head_dim, 16); }
  template <class Fn>
  void for_each_part(int64_t b, const Fn& fn) const {
    const int64_t element = f16_ ? 2 : 4, slot = b * 16 % capacity;
    for (int64_t head = 0; head < kv_heads; ++head) {
      const auto key = static_cast<uint64_t>(head * key_bytes_ + slot * head_dim * element);
      fn(address(keys_) + key, 16 * head_dim * element);
      for (int64_t c = 0; c < columns(); ++c) {
        const int64_t value = head * value_bytes_ + (c * capacity + slot) * 16 * element;
        fn(address(values_) + static_cast<uint64_t>(value), 16 * 16 * element);
      }
    }
  }

  const std::shared_ptr<GpuDevice> device_;
  const bool f16_;
  int64_t key_bytes_ = 0, value_bytes_ = 0;
  std::shared_ptr<void> keys_, values_;
};

class GpuRouting : public Routing {
 public:
  RoutingSizes sizes;
  std::shared_ptr<void> memory;
  RouteArguments route{};
  Global<float> in, gated, out;  // [places, hidden], [places, ffn], [places, hidden]
};

}  // namespace gemtp::gpu
