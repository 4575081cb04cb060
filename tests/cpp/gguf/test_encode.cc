// Runs encoders on blocks of every shape and size, for the sanitizers, and compares bytes. How good
// the values are is a matter of tests/files/test_encode.py.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "gguf/blocks.h"
#include "quantize/encode.h"

namespace gemtp {
namespace {

constexpr DType kTypes[] = {DType::kQ8_0, DType::kQ4_0,  DType::kQ4_1,   DType::kQ5_0,
                            DType::kQ5_1, DType::kMXFP4, DType::kIQ4_NL, DType::kIQ4_XS,
                            DType::kQ2_K, DType::kQ3_K,  DType::kQ4_K,   DType::kQ5_K,
                            DType::kQ6_K};

// [256] of one kind each: zeros, a constant of either sign, a ramp, one outlier, noise.
std::vector<std::vector<float>> blocks(float magnitude) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> out(6, std::vector<float>(256, 0.0f));
  for (int i = 0; i < 256; ++i) {
    const auto at = static_cast<size_t>(i);
    out[1][at] = magnitude;
    out[2][at] = -magnitude;
    out[3][at] = magnitude * (static_cast<float>(i) / 128.0f - 1.0f);
    out[4][at] = (i == 77 ? 100.0f : 1e-3f) * magnitude;
    out[5][at] = magnitude * normal(random);
  }
  return out;
}

TEST_CASE("encoders keep to their blocks and come close") {
  for (const DType type : kTypes) {
    REQUIRE(encodable(type));
    const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
    const size_t bytes = static_cast<size_t>(256 / info.block * info.bytes);
    for (const float magnitude : {1e-30f, 1e-7f, 1e-3f, 1.0f, 500.0f})
      for (const std::vector<float>& x : blocks(magnitude)) {
        std::vector<float> importance(256, 0.0f);
        for (size_t i = 0; i < 256; i += 3) importance[i] = static_cast<float>(i);
        float peak = 0;
        for (const float v : x) peak = std::max(peak, std::fabs(v));
        for (const bool weighted : {false, true}) {
          const float* w = weighted ? importance.data() : nullptr;
          std::vector<uint8_t> out(bytes);
          encode(type, x.data(), 256, w, out.data());
          double error = 0;
          for (int b = 0; b < 256 / info.block; ++b) {
            DecodedBlock decoded;
            REQUIRE(decode_block(type, out.data() + b * info.bytes, &decoded));
            float y[256];
            dequantize_block(decoded, info.block, y);
            for (int i = 0; i < info.block; ++i)
              error += std::pow(double{y[i]} - x[static_cast<size_t>(b * info.block + i)], 2);
          }
          if (!w) CHECK(std::sqrt(error / 256) <= 0.4 * peak + 1e-5);
        }
      }
  }
  CHECK_FALSE(encodable(DType::kF16));
  CHECK_FALSE(encodable(DType::kIQ1_S));
}

// Blocks that are searched side by side do not notice each other.
TEST_CASE("a row's blocks are those that each value's own block gives") {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (const DType type : kTypes) {
    const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
    for (const int64_t count : {1, 3, 4, 5, 11}) {
      const auto n = static_cast<size_t>(count * info.block);
      std::vector<float> x(n), importance(n);
      for (size_t i = 0; i < n; ++i) {
        const auto block = static_cast<int>(i) / static_cast<int>(info.block);
        x[i] = block % 4 == 2 ? 0.0f : normal(random) * std::exp2(static_cast<float>(9 - block));
        importance[i] = block % 3 == 1 ? 0.0f : std::fabs(normal(random));
      }
      for (const bool weighted : {false, true}) {
        const float* w = weighted ? importance.data() : nullptr;
        const auto bytes = static_cast<size_t>(count * info.bytes);
        std::vector<uint8_t> row(bytes + 1, 0xee), alone(bytes + 1, 0xee);
        encode(type, x.data(), count * info.block, w, row.data());
        for (int64_t b = 0; b < count; ++b)
          encode(type, x.data() + b * info.block, info.block, w ? w + b * info.block : nullptr,
                 alone.data() + b * info.bytes);
        CHECK(row == alone);
      }
    }
  }
}

// Hashes (FNV-1a, 64 bits) of noise and of outliers, without and with importance.
TEST_CASE("the bytes of a search are the same on every machine and in every version") {
  const std::pair<DType, uint64_t> expected[] = {
      {DType::kQ4_0, 0x4067cb1870697b80},   {DType::kQ4_1, 0x349cd5a366214bf8},
      {DType::kQ5_0, 0x4b0b24d226c6a84c},   {DType::kQ5_1, 0xc5bf6f9de4d83ad1},
      {DType::kIQ4_NL, 0x550bff616ea6aea7}, {DType::kIQ4_XS, 0x6140d348b913d8f1},
      {DType::kQ2_K, 0x21b9836aa9a5acb8},   {DType::kQ3_K, 0x939aff0151b90e76},
      {DType::kQ4_K, 0xa6e57f904f256e75},   {DType::kQ5_K, 0x2c16d38f2d692d07},
      {DType::kQ6_K, 0x6acc264d0c677d79},
  };
  for (const auto& [type, hash] : expected) {
    const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
    uint64_t found = 14695981039346656037u;
    uint32_t state = 1;
    const auto noise = [&] {  // -1 .. 1, exact in float
      state = state * 1664525 + 1013904223;
      return static_cast<float>(static_cast<int32_t>(state) >> 8) * 0x1p-23f;
    };
    for (int round = 0; round < 64; ++round) {
      std::vector<float> x(256), importance(256);
      for (size_t i = 0; i < 256; ++i) {
        x[i] = noise() * noise() * noise();
        if (round % 4 == 3 && i % 50 == 7) x[i] *= 40;
        importance[i] = noise() + 1;
      }
      std::vector<uint8_t> out(static_cast<size_t>(256 / info.block * info.bytes));
      encode(type, x.data(), 256, round % 2 ? importance.data() : nullptr, out.data());
      for (const uint8_t byte : out) found = (found ^ byte) * 1099511628211u;
    }
    CAPTURE(info.name);
    CHECK(found == hash);
  }
}

}  // namespace
}  // namespace gemtp
