#include "quantize/search.h"

#include <array>

namespace gemtp {
namespace {

constexpr float kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113};

// Midpoints between levels are multiples of 1/2, so one level is the nearest for all values between
// two such multiples: entry i is the code of the nearest level in [low + i / 2, low + (i + 1) / 2).
constexpr int kHalves = 2 * (113 + 127) + 1;
constexpr std::array<uint8_t, kHalves> kNearest = [] {
  std::array<uint8_t, kHalves> codes{};
  int code = 0;
  for (int i = 0; i < kHalves; ++i) {
    const float v = -127.0f + 0.5f * static_cast<float>(i);
    while (code < 15 && v >= 0.5f * (kLevels[code] + kLevels[code + 1])) ++code;
    codes[static_cast<size_t>(i)] = static_cast<uint8_t>(code);
  }
  return codes;
}();

constexpr float kTrace = 1e-6f;

}  // namespace

uint8_t Iq4Levels::code(float v) {
  v = v < low ? low : v > high ? high : v;
  return kNearest[static_cast<size_t>(2.0f * (v - low))];
}

Floats Iq4Levels::nearest(Floats v) {
  for (int g = 0; g < kLanes; ++g) v[g] = kLevels[code(v[g])];
  return v;
}

void error_weights(const float* importance, int n, float* out) {
  double sum = 0;
  if (importance)
    for (int i = 0; i < n; ++i) sum += importance[i];
  if (!(sum > 0)) {
    std::fill(out, out + n, 1.0f);
    return;
  }
  // Weights are in units of their mean, so no sum overflows.
  const double unit = sum / n;
  for (int i = 0; i < n; ++i) out[i] = std::max(static_cast<float>(importance[i] / unit), kTrace);
}

}  // namespace gemtp
