// What the GPU backend keeps in a device's memory: matrices, K/V, the routing of experts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/tiled_kv.h"
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

class GpuKv : public TiledKv {
 public:
  explicit GpuKv(std::shared_ptr<GpuDevice> device) : device_(std::move(device)) {}

  void allocate() {
    bytes = kv_heads * (key_bytes() + value_bytes());
    keys_ = reserve(device_, kv_heads * key_bytes());
    values_ = reserve(device_, kv_heads * value_bytes());
  }
  const char* type() const { return f16 ? "f16" : "f32"; }
  KvPlace place() const {
    return {Global<uint8_t>(address(keys_)), Global<uint8_t>(address(values_)), key_bytes(),
            value_bytes(), narrow(capacity)};
  }

  void get_block(int64_t b, uint8_t* to) const override {
    const auto get = [this, &to](uint64_t base) {
      return [this, &to, base](int64_t at, int64_t n) {
        device_->read(base + static_cast<uint64_t>(at), to, n);
        to += n;
      };
    };
    for_each_part(b, get(address(keys_)), get(address(values_)));
  }
  void put_block(int64_t b, const uint8_t* from) override {
    const auto put = [this, &from](uint64_t base) {
      return [this, &from, base](int64_t at, int64_t n) {
        device_->write(base + static_cast<uint64_t>(at), from, n);
        from += n;
      };
    };
    for_each_part(b, put(address(keys_)), put(address(values_)));
  }

 private:
  static uint64_t address(const std::shared_ptr<void>& memory) {
    return reinterpret_cast<uint64_t>(memory.get());
  }

  const std::shared_ptr<GpuDevice> device_;
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
