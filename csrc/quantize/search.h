// Shared by the searches for scales: 256 values in groups, the levels that they are rounded to, and
// weighted sums.
//
// Four groups are searched side by side, one in each lane of a vector: one instruction of any
// instruction set then works for all. What happens in one lane is float arithmetic in a fixed
// order, the same on every machine. The vectors are those of GCC and Clang.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace gemtp {

/// Values and scales below this count as zero, because they are zero in f16.
constexpr float kZero = 0x1p-60f;

/// Vectors with a lane for each of four groups. A comparison of two gives -1 in the lanes where it
/// holds and 0 elsewhere. (No function takes or returns the wider ones: how is a matter of the
/// ABI.)
constexpr int kLanes = 4;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t FloatMask __attribute__((vector_size(4 * kLanes)));
typedef double Doubles __attribute__((vector_size(8 * kLanes)));
typedef int64_t DoubleMask __attribute__((vector_size(8 * kLanes)));

/// Rounds to integers, towards zero.
inline Floats truncate(Floats v) {
  return __builtin_convertvector(__builtin_convertvector(v, FloatMask), Floats);
}
inline Floats magnitude(Floats v) { return v < 0 ? -v : v; }
inline Floats clamp(Floats v, float low, float high) {
  v = v < low ? Floats{} + low : v;
  return v > high ? Floats{} + high : v;
}
inline bool any(FloatMask mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
/// 1 / scale, or 0 for a scale that counts as zero.
inline Floats inverse_of(Floats scale) {
  return magnitude(scale) > kZero ? 1.0f / scale : Floats{};
}

/// The integers low .. high.
struct IntegerLevels {
  float low, high;
  Floats nearest(Floats v) const { return truncate(clamp(v, low, high) - low + 0.5f) + low; }
  /// How finely the search tries scales: about the number of levels on either side of zero.
  float fineness() const { return std::max(-low, high); }
};

/// The levels of IQ4_NL and IQ4_XS, denser around zero.
struct Iq4Levels {
  static constexpr float low = -127, high = 113;
  static Floats nearest(Floats v);
  float fineness() const { return 8; }
  /// The code of a level.
  static uint8_t code(float level);
};

/// Four groups of N values that share a scale, with the weights of their errors. Row i of an array
/// holds value i of every group.
template <int N>
struct Groups {
  static constexpr int kValues = kLanes * N;
  Floats x[N], w[N], wx[N];

  /// values, weights: [kValues], group after group.
  void set(const float* values, const float* weights) {
    for (int i = 0; i < N; ++i) {
      for (int g = 0; g < kLanes; ++g) {
        x[i][g] = values[g * N + i];
        w[i][g] = weights[g * N + i];
      }
      x[i] = magnitude(x[i]) < kZero ? Floats{} : x[i];
      wx[i] = w[i] * x[i];
    }
  }

  /// Sum of term(i) over the values of each group, in eight parts that are added in a fixed order.
  template <class Term>
  static Floats total(const Term& term) {
    static_assert(N % 8 == 0);
    Floats part[8];
    for (int j = 0; j < 8; ++j) {
      part[j] = Floats{};
      for (int i = j; i < N; i += 8) part[j] += term(i);
    }
    return ((part[0] + part[4]) + (part[2] + part[6])) +
           ((part[1] + part[5]) + (part[3] + part[7]));
  }

  /// q = the levels nearest to (x + offset) * inverse.
  template <class Levels>
  void round(Floats inverse, Floats offset, const Levels& levels, Floats (&q)[N]) const {
    for (int i = 0; i < N; ++i) q[i] = levels.nearest((x[i] + offset) * inverse);
  }

  /// Sums of w, w x, w q, w q^2 and w x q.
  Floats sum_w() const {
    return total([&](int i) { return w[i]; });
  }
  Floats sum_wx() const {
    return total([&](int i) { return wx[i]; });
  }
  Floats wq(const Floats (&q)[N]) const {
    return total([&](int i) { return w[i] * q[i]; });
  }
  Floats wqq(const Floats (&q)[N]) const {
    return total([&](int i) { return w[i] * q[i] * q[i]; });
  }
  Floats wxq(const Floats (&q)[N]) const {
    return total([&](int i) { return wx[i] * q[i]; });
  }

  /// Writes q - low of every value, group after group. codes: [kValues].
  static void put_codes(const Floats (&q)[N], float low, uint8_t* codes) {
    for (int i = 0; i < N; ++i)
      for (int g = 0; g < kLanes; ++g) codes[g * N + i] = static_cast<uint8_t>(q[i][g] - low);
  }

  /// Sum of w (x - (scale q - min))^2.
  Floats error(Floats scale, Floats min, const Floats (&q)[N]) const {
    return total([&](int i) {
      const Floats e = x[i] - (scale * q[i] - min);
      return w[i] * e * e;
    });
  }
};

/// Computes positive weights of n values: their importance, or all ones if it is null or sums to
/// zero. Values without importance get a tiny weight, so that they do not become arbitrary.
void error_weights(const float* importance, int n, float* out);

}  // namespace gemtp
