// Runs encoders on blocks of every shape and size, for the sanitizers. tests/files/test_encode.py
// checks the values.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
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

}  // namespace
}  // namespace gemtp
