// A device to test kernels on, and inputs of kernel_testing.h as they lie in its memory.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "backend/gpu/address.h"
#include "backend/gpu/cuda/cuda_device.h"
#include "backend/gpu/emulated/kernels.h"
#include "backend/gpu/format_names.h"
#include "backend/gpu/gpu_device.h"
#include "backend/gpu/kernels/arguments.h"
#include "backend/gpu/metal/metal_device.h"
#include "kernel_testing.h"

namespace gemtp::gpu_testing {

using namespace gemtp::gpu;
using kernel_testing::Activations;
using kernel_testing::Random;
using kernel_testing::Values;

/// Whether the tests run on a GPU, which GEMTP_TEST_DEVICE names ("cuda", "cuda:N", "metal"),
/// instead of the emulated one (tools/try_gpu.sh).
inline const char* gpu_of_tests() {
  static const char* const name = std::getenv("GEMTP_TEST_DEVICE");
  return name;
}

/// Orders of blocks and threads that a test tries on the emulated device; in the first one races
/// are looked for. The environment may ask for more: GEMTP_ORDERS.
inline uint64_t orders() {
  static const char* const asked = std::getenv("GEMTP_ORDERS");
  return gpu_of_tests() ? 1 : asked ? std::strtoull(asked, nullptr, 10) : 3;
}

/// An emulated device of its own, or the GPU, which all tests share.
inline std::shared_ptr<GpuDevice> make_device(const EmulatedOptions& options) {
  if (!gpu_of_tests()) return make_emulated_device(options);
  static const std::shared_ptr<GpuDevice> gpu = [] {
    const std::string name = gpu_of_tests();
    const size_t colon = name.find(':');
    std::shared_ptr<GpuDevice> opened =
        name == "metal"
            ? make_metal_device()
            : make_cuda_device(colon == std::string::npos ? 0 : std::stoi(name.substr(colon + 1)));
    REQUIRE(opened->quant_bytes() == quant_bytes());  // else these are the other program's tests
    return opened;
  }();
  return gpu;
}

class TestDevice {
 public:
  explicit TestDevice(uint64_t seed)
      : device_(make_device({seed, EmulatedOptions().memory, seed == 0})) {}
  ~TestDevice() {
    for (const uint64_t address : allocated_) device_->release(address);
  }
  TestDevice(const TestDevice&) = delete;
  TestDevice& operator=(const TestDevice&) = delete;

  template <class T>
  Global<T> allocate(int64_t n) {
    allocated_.push_back(
        device_->allocate(std::max<int64_t>(n, 1) * static_cast<int64_t>(sizeof(T))));
    return Global<T>(allocated_.back());
  }
  template <class T>
  Global<T> upload(const T* from, int64_t n) {
    const Global<T> to = allocate<T>(n);
    write(to, from, n);
    return to;
  }
  template <class T>
  Global<T> upload(const std::vector<T>& from) {
    return upload(from.data(), static_cast<int64_t>(from.size()));
  }
  template <class T>
  void write(Global<T> to, const T* from, int64_t n) {
    device_->write(to.address, from, n * static_cast<int64_t>(sizeof(T)));
  }
  template <class T>
  std::vector<T> download(Global<T> from, int64_t n) const {
    std::vector<T> out(static_cast<size_t>(n));
    device_->read(from.address, out.data(), n * static_cast<int64_t>(sizeof(T)));
    return out;
  }

  template <class Arguments>
  void launch(const std::string& kernel, int64_t blocks, int64_t rows, const Arguments& arguments) {
    const Kernel* found = find_kernel(kernel);
    REQUIRE_MESSAGE(found, kernel);
    REQUIRE(found->argument_bytes == sizeof(Arguments));
    device_->launch(kernel, blocks, rows, &arguments, static_cast<int64_t>(sizeof arguments));
    device_->wait();
  }

 private:
  std::shared_ptr<GpuDevice> device_;
  std::vector<uint64_t> allocated_;
};

/// Blocks of quantized rows, as the host reads and writes them.
struct HostQuantized {
  int64_t count;
  std::vector<uint8_t> bytes;

  static int64_t block_bytes() { return 16 + 32 * quant_bytes(); }
  explicit HostQuantized(int64_t blocks)
      : count(blocks), bytes(static_cast<size_t>(blocks * block_bytes())) {}

  void put_head(int64_t block, const BlockHead& head) {
    std::memcpy(bytes.data() + block * block_bytes(), &head, sizeof head);
  }
  void put(int64_t block, int64_t i, int q) {
    const int64_t group = i / 4, place = (group < 4 ? 2 * group : 2 * group - 7) * 4 + i % 4;
    uint8_t* at = bytes.data() + block * block_bytes() + 16 + place * quant_bytes();
    const auto value = static_cast<float>(q);
    if (quant_bytes() == 1)
      *at = static_cast<uint8_t>(q);
    else
      std::memcpy(at, &value, 4);
  }

  /// With room for more rows behind them.
  QuantizedRows upload(TestDevice& device, int64_t room = 0) const {
    std::vector<uint8_t> all(bytes);
    all.insert(all.end(), static_cast<size_t>(room * block_bytes()), 0);
    return device.upload(all);
  }
};

/// What the scalar kernel makes of rows of k floats, `stride` apart.
inline HostQuantized quantized(const float* x, int64_t m, int64_t k, int64_t stride) {
  HostQuantized out(m * k / 32);
  for (int64_t i = 0; i < m; ++i) {
    std::vector<int8_t> q(static_cast<size_t>(k));
    std::vector<float> d(q.size()), sum(q.size());
    std::vector<int32_t> bias(q.size()), pairs(2 * q.size());
    gemtp_kernels_scalar.quantize_q8(x + i * stride, k, 1,
                                     {q.data(), d.data(), bias.data(), pairs.data(), sum.data()});
    for (int64_t b = 0; b < k / 32; ++b) {
      int halves[2] = {};
      for (int64_t j = 0; j < 32; ++j) {
        const int v = q[static_cast<size_t>(b * 32 + j)];
        out.put(i * (k / 32) + b, j, v);
        halves[j / 16] += v;
      }
      out.put_head(i * (k / 32) + b,
                   {d[static_cast<size_t>(b)], halves[0] + halves[1], sum[static_cast<size_t>(b)],
                    gemtp_two_int16(halves[0], halves[1])});
    }
  }
  return out;
}
inline HostQuantized quantized(const Activations& x) {
  return quantized(x.x.data(), x.m, x.k, x.stride);
}

/// Room for the quantized results of a kernel, and whether they are those expected.
struct QuantizedResult {
  QuantizedRows rows;
  explicit QuantizedResult(QuantizedRows known) : rows(known) {}
  QuantizedResult(TestDevice& device, int64_t blocks)
      : rows(device.allocate<uint8_t>(blocks * HostQuantized::block_bytes())) {}
  bool equals(const TestDevice& device, const HostQuantized& expected) const {
    auto got = device.download(rows, static_cast<int64_t>(expected.bytes.size()));
    for (int64_t b = 0; b < expected.count; ++b) {  // which NaN a sum is does not matter
      uint8_t* at = got.data() + b * HostQuantized::block_bytes();
      BlockHead head, other;
      std::memcpy(&head, at, sizeof head);
      std::memcpy(&other, expected.bytes.data() + (at - got.data()), sizeof other);
      if (std::isnan(head.sum) && std::isnan(other.sum)) std::memcpy(at, &other, sizeof other);
    }
    return got == expected.bytes;
  }
};

/// Keys and values as CpuAttention stores them.
struct HostKv {
  int64_t heads, d, capacity;
  bool f16;
  std::vector<uint8_t> keys, values;

  HostKv(int64_t n, int64_t dims, int64_t slots, bool half)
      : heads(n),
        d(dims),
        capacity(slots),
        f16(half),
        keys(static_cast<size_t>(n * key_bytes())),
        values(static_cast<size_t>(n * value_bytes())) {}
  int64_t element() const { return f16 ? 2 : 4; }
  int64_t key_bytes() const { return capacity * d * element(); }
  int64_t value_bytes() const { return (d + 15) / 16 * 16 * capacity * element(); }

  void put(std::vector<uint8_t>& to, int64_t at, float v) const {
    const uint16_t half = gemtp_f32_to_f16(v);
    std::memcpy(to.data() + at * element(), f16 ? static_cast<const void*>(&half) : &v,
                static_cast<size_t>(element()));
  }
  void store(int64_t head, int64_t position, const float* k, const float* v) {
    const int64_t slot = position % capacity;
    for (int64_t i = 0; i < d; ++i) {
      put(keys, head * capacity * d + (slot / 16 * d + i) * 16 + slot % 16, k[i]);
      put(values, head * capacity * ((d + 15) / 16 * 16) + (i / 16 * capacity + slot) * 16 + i % 16,
          v[i]);
    }
  }
};

/// Where a device has them.
inline KvPlace upload(TestDevice& device, const HostKv& kv) {
  return {device.upload(kv.keys), device.upload(kv.values), kv.key_bytes(), kv.value_bytes(),
          static_cast<int32_t>(kv.capacity)};
}

/// Those whose kernels are compiled: all, but for programs with mutants.
inline std::vector<gemtp_format> formats() {
  std::vector<gemtp_format> out;
  for (const gemtp_format f : kernel_testing::kFormats)
    if (find_kernel(std::string("embed_") + kFormatNames[f])) out.push_back(f);
  return out;
}

inline PackedMatrix upload(TestDevice& device, const kernel_testing::Matrix& w,
                           float scale = 1.0f) {
  PackedMatrix out{};
  out.tiles = device.upload(w.data.get(), (w.rows + 15) / 16 * w.tile_bytes);
  out.tile_bytes = w.tile_bytes;
  out.rows = static_cast<int32_t>(w.rows);
  out.scale = scale;
  std::memcpy(&out.table, w.table, 16);
  return out;
}

/// The kernel of a format for m rows, and how many rows a panel of it has.
struct MatmulKernel {
  std::string name;
  int64_t panel;
};
inline MatmulKernel matmul_kernel(gemtp_format format, int64_t m, const char* activation = "") {
  const bool floats = format <= GEMTP_BF16;
  int64_t panel = 1;
  while (panel < m && panel < 16) panel *= floats ? 4 : 2;
  return {std::string("matmul_") + kFormatNames[format] + "_" + std::to_string(panel) + activation,
          panel};
}

}  // namespace gemtp::gpu_testing
