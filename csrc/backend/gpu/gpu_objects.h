// What the GPU backend keeps in a device's memory: matrices, K/V, the routing of experts, recorded
// passes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/tiled_kv.h"
#include "backend/gpu/address.h"
#include "backend/gpu/gpu_device.h"
#include "backend/gpu/kernels/arguments.h"
#include "base/error.h"

namespace gemtp::gpu {

/// An address of the device, as a number.
template <class T>
uint64_t number(Device<T> at) {
  return reinterpret_cast<uint64_t>(at.address());
}
inline uint64_t address(const std::shared_ptr<void>& memory) {
  return reinterpret_cast<uint64_t>(memory.get());
}

/// What a kernel reads.
template <class T>
Global<const T> global(Device<const T> at) {
  return Global<const T>(number(at));
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

/// Likewise, all zero.
inline std::shared_ptr<void> reserve_zeros(const std::shared_ptr<GpuDevice>& device,
                                           int64_t bytes) {
  constexpr int64_t kPiece = 16 << 20;
  std::shared_ptr<void> memory = reserve(device, bytes);
  const std::vector<uint8_t> zeros(static_cast<size_t>(std::min(bytes, kPiece)));
  for (int64_t at = 0; at < bytes; at += kPiece)
    device->write(address(memory) + static_cast<uint64_t>(at), zeros.data(),
                  std::min(kPiece, bytes - at));
  return memory;
}

/// Memory that grows. What it outgrows is kept, for work that has been recorded, until it is taken.
class GpuScratch {
 public:
  using Outgrown = std::vector<std::shared_ptr<void>>;

  /// Returns the address of at least `bytes` bytes, zero or used before.
  uint64_t ensure(const std::shared_ptr<GpuDevice>& device, int64_t bytes, Outgrown& outgrown) {
    if (bytes > bytes_) {
      if (memory_) outgrown.push_back(std::move(memory_));
      bytes_ = 0;
      memory_ = reserve_zeros(device, bytes);
      bytes_ = bytes;
    }
    return address(memory_);
  }
  const std::shared_ptr<void>& memory() const { return memory_; }

 private:
  std::shared_ptr<void> memory_;
  int64_t bytes_ = 0;
};

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

class GpuMatrixSet : public MatrixSet {
 public:
  using MatrixSet::MatrixSet;
  std::shared_ptr<void> memory;
  Global<const SetMember> members() const { return Global<const SetMember>(address(memory)); }
};

inline const GpuMatrix& first_of(const MatrixSet& set) { return of(&set[0]); }

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
  const std::shared_ptr<GpuDevice> device_;
  std::shared_ptr<void> keys_, values_;
};

class GpuRouting : public Routing {
 public:
  RoutingSizes sizes;
  std::shared_ptr<void> memory;
  RouteArguments route{};
  // By place. `in` and `gated` as the experts' matrices multiply them: quantized, or floats.
  uint64_t in = 0, gated = 0;  // [places, hidden], [places, ffn]
  Global<float> gated_floats;  // [places, ffn]
  Global<float> out;           // [places, hidden]
};

/// Where the K/V of a pass lie, and room for the scores of a query.
class GpuRows : public SentRows {
 public:
  Mirror<KvPlace> kv;  // [layers][sequences]
  int64_t layers = 0, sequences = 0;
  int64_t full_stride = 0, sliding_stride = 0;
};

class GpuRecordings : public Recordings {
 public:
  struct Entry {
    std::vector<int64_t> shape;
    std::unique_ptr<Recording> recording;       // none: the shape has been seen once
    std::vector<std::shared_ptr<void>> memory;  // that it uses besides its owner's
  };

  /// Moves the shape's entry, which is made if there is none, to the front.
  /// known: whether there was one.
  Entry& of(const std::vector<int64_t>& shape, bool* known) {
    auto at = std::find_if(entries_.begin(), entries_.end(),
                           [&](const Entry& e) { return e.shape == shape; });
    *known = at != entries_.end();
    if (at == entries_.end()) {
      if (entries_.size() == kMost) entries_.pop_back();
      entries_.push_front({shape, nullptr, {}});
    } else {
      entries_.splice(entries_.begin(), entries_, at);
    }
    return entries_.front();
  }

 private:
  static constexpr size_t kMost = 64;
  std::list<Entry> entries_;
};

}  // namespace gemtp::gpu
