// Shared by the searches for scales: levels that values are rounded to, and weighted sums.
//
// Sums run in eight float lanes that are added in a fixed order: compilers can vectorize them, and
// the result does not depend on how.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace gemtp {

// GCC unrolls a loop over one group before it vectorizes, and then no longer does.
#if defined(__GNUC__) && !defined(__clang__)
#define GEMTP_ROLLED _Pragma("GCC unroll 1")
#else
#define GEMTP_ROLLED
#endif

/// Values and scales below this count as zero, because they are zero in f16.
constexpr float kZero = 0x1p-60f;

/// The integers low .. high.
struct IntegerLevels {
  float low, high;
  float nearest(float v) const {
    v = v < low ? low : v > high ? high : v;
    return static_cast<float>(static_cast<int>(v - low + 0.5f)) + low;
  }
  /// How finely the search tries scales: about the number of levels on either side of zero.
  float fineness() const { return std::max(-low, high); }
};

/// The levels of IQ4_NL and IQ4_XS, denser around zero.
struct Iq4Levels {
  static constexpr float low = -127, high = 113;
  static float nearest(float v);
  float fineness() const { return 8; }
  /// The code of a level.
  static uint8_t code(float level);
};

template <int N>
inline float total(const float (&v)[N]) {
  static_assert(N % 8 == 0);
  float lanes[8] = {};
  GEMTP_ROLLED
  for (int i = 0; i < N; i += 8) {
    GEMTP_ROLLED
    for (int j = 0; j < 8; ++j) lanes[j] += v[i + j];
  }
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/// A group of N values that share a scale, with the weights of their errors.
template <int N>
struct Group {
  float x[N], w[N], wx[N];

  void set(const float* values, const float* weights) {
    for (int i = 0; i < N; ++i) {
      x[i] = std::fabs(values[i]) < kZero ? 0.0f : values[i];
      w[i] = weights[i];
      wx[i] = w[i] * x[i];
    }
  }

  /// q = the levels nearest to (x + offset) / scale.
  template <class Levels>
  void round(float inverse, float offset, const Levels& levels, float (&q)[N]) const {
    GEMTP_ROLLED
    for (int i = 0; i < N; ++i) q[i] = levels.nearest((x[i] + offset) * inverse);
  }

  /// Sums of w q, w q^2 and w x q.
  float wq(const float (&q)[N]) const {
    float v[N];
    GEMTP_ROLLED
    for (int i = 0; i < N; ++i) v[i] = w[i] * q[i];
    return total(v);
  }
  float wqq(const float (&q)[N]) const {
    float v[N];
    GEMTP_ROLLED
    for (int i = 0; i < N; ++i) v[i] = w[i] * q[i] * q[i];
    return total(v);
  }
  float wxq(const float (&q)[N]) const {
    float v[N];
    GEMTP_ROLLED
    for (int i = 0; i < N; ++i) v[i] = wx[i] * q[i];
    return total(v);
  }

  /// Sum of w (x - (scale q - min))^2.
  float error(float scale, float min, const float (&q)[N]) const {
    float v[N];
    GEMTP_ROLLED
    for (int i = 0; i < N; ++i) {
      const float e = x[i] - (scale * q[i] - min);
      v[i] = w[i] * e * e;
    }
    return total(v);
  }
};

/// Computes positive weights of n values: their importance, or all ones if it is null or sums to
/// zero. Values without importance get a tiny weight, so that they do not become arbitrary.
void error_weights(const float* importance, int n, float* out);

}  // namespace gemtp
