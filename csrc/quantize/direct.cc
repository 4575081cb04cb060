#include "quantize/direct.h"

#include <algorithm>
#include <cmath>

#include "base/numeric.h"
#include "quantize/fields.h"

namespace gemtp {
namespace {

constexpr int kBlock = 32;

// Magnitudes below this count as zero: the f16 scale of such a block would be zero and its inverse
// infinite.
constexpr float kTiny = 0x1p-100f;

struct Block {
  float x[kBlock];
  explicit Block(const float* from) {
    for (int i = 0; i < kBlock; ++i) x[i] = std::fabs(from[i]) < kTiny ? 0.0f : from[i];
  }
  /// The value with the largest magnitude; the first if several are equal.
  float peak() const {
    float best = x[0];
    for (float v : x)
      if (std::fabs(v) > std::fabs(best)) best = v;
    return best;
  }
};

float inverse(float d) { return std::fabs(d) < 0x1p-120f ? 0.0f : 1.0f / d; }

// Truncates v and clamps it to 0 .. top.
uint8_t code(float v, int top) {
  return static_cast<uint8_t>(std::clamp(static_cast<int>(v), 0, top));
}

// Encodes x = d (code - half), where the value with the largest magnitude has code 0; returns d.
template <int half>
float symmetric_codes(const Block& b, uint8_t* codes) {
  const float d = b.peak() / -static_cast<float>(half), id = inverse(d);
  for (int i = 0; i < kBlock; ++i)
    codes[i] = code(b.x[i] * id + (static_cast<float>(half) + 0.5f), 2 * half - 1);
  return d;
}

// Encodes x = d code + m; returns d.
template <int top>
float affine_codes(const Block& b, uint8_t* codes, float* m) {
  const auto [low, high] = std::minmax_element(b.x, b.x + kBlock);
  const float d = (*high - *low) / static_cast<float>(top), id = inverse(d);
  *m = *low;
  for (int i = 0; i < kBlock; ++i) codes[i] = code((b.x[i] - *low) * id + 0.5f, top);
  return d;
}

// Rounds to the nearest integer, halves away from zero.
int8_t rounded(float v) {
  const float a = std::fabs(v), below = std::floor(a);
  const auto n = static_cast<int>(below + std::floor(2.0f * (a - below)));
  return static_cast<int8_t>(v < 0 ? -n : n);
}

}  // namespace

void encode_q8_0(const float* x, uint8_t* out) {
  const Block b(x);
  const float d = std::fabs(b.peak()) / 127.0f, id = inverse(d);
  put_f16(out, d);
  for (int i = 0; i < kBlock; ++i) out[2 + i] = static_cast<uint8_t>(rounded(b.x[i] * id));
}

void encode_q4_0(const float* x, uint8_t* out) {
  uint8_t codes[kBlock];
  put_f16(out, symmetric_codes<8>(Block(x), codes));
  put_nibbles(out + 2, codes);
}

void encode_q4_1(const float* x, uint8_t* out) {
  uint8_t codes[kBlock];
  float m;
  put_f16(out, affine_codes<15>(Block(x), codes, &m));
  put_f16(out + 2, m);
  put_nibbles(out + 4, codes);
}

void encode_q5_0(const float* x, uint8_t* out) {
  uint8_t codes[kBlock];
  put_f16(out, symmetric_codes<16>(Block(x), codes));
  put_fifth_bits(out + 2, codes);
  put_nibbles(out + 6, codes);
}

void encode_q5_1(const float* x, uint8_t* out) {
  uint8_t codes[kBlock];
  float m;
  put_f16(out, affine_codes<31>(Block(x), codes, &m));
  put_f16(out + 2, m);
  put_fifth_bits(out + 4, codes);
  put_nibbles(out + 8, codes);
}

void encode_mxfp4(const float* x, uint8_t* out) {
  constexpr float kTwice[16] = {0, 1, 2, 3, 4, 6, 8, 12, -0.0f, -1, -2, -3, -4, -6, -8, -12};
  constexpr double kLog2 = 0.69314718055994530942;
  const Block b(x);
  const float peak = std::fabs(b.peak());
  // The logarithm is rounded to float32 before its integer part is taken, like the reference
  // implementation does: values just below a power of two count as that power.
  int e = 0;
  if (peak > 0)
    e = static_cast<int>(std::floor(static_cast<float>(portable_log(peak) / kLog2))) - 2 + 127;
  out[0] = static_cast<uint8_t>(e);
  // Half of 2^(e - 127), the scale of the doubled values.
  const float d =
      gemtp_f32_from_bits(e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23);
  uint8_t codes[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    int best = 0;
    for (int k = 1; k < 16; ++k)
      if (std::fabs(d * kTwice[k] - b.x[i]) < std::fabs(d * kTwice[best] - b.x[i])) best = k;
    codes[i] = static_cast<uint8_t>(best);
  }
  put_nibbles(out + 1, codes);
}

}  // namespace gemtp
