// The elementary functions, with the operations of backend/cpu/scalar_math.h, which defines them.
#pragma once

namespace gemtp {
namespace gpu {

/// Numbers this small count as zero: sums never meet one that some devices round to zero.
GPU_FLOAT kTiny = 9.094947017729282e-13f;  // 2^-40

GPU_INLINE float flushed(float x) { return float_of(bits_of(x) & 0x7fffffffu) < kTiny ? 0.0f : x; }

GPU_INLINE float infinity() { return float_of(0x7f800000u); }

GPU_INLINE float exp_of(float x) {
  const float low = -27.7f, high = 88.0f;
  float c = x > low ? x : low;  // also takes a NaN to `low`
  c = c < high ? c : high;
  const float n = nearest(c * 1.44269504088896341f);
  float r = fused(-n, 0.693359375f, c);
  r = fused(-n, -2.12194440e-4f, r);
  float p = 0.001391894300468266f;
  p = fused(p, r, 0.008363178931176662f);
  p = fused(p, r, 0.0416666641831398f);
  p = fused(p, r, 0.16666576266288757f);
  p = fused(p, r, 0.5f);
  float e = fused(p, r * r, r) + 1.0f;
  e = e * float_of(uint32_t(int32_t(n) + 127) << 23);
  return x < low ? 0.0f : e;
}

GPU_INLINE float tanh_of(float x) {
  const float a = float_of(bits_of(x) & 0x7fffffffu);
  const float z = x * x;
  float q = -0.006096714176237583f;
  q = fused(q, z, 0.020997179672122f);
  q = fused(q, z, -0.05385090783238411f);
  q = fused(q, z, 0.1333276927471161f);
  q = fused(q, z, -0.333333283662796f);
  const float small = fused(x * z, q, x);
  const float large = 1.0f - 2.0f / (exp_of(a + a) + 1.0f);
  const float large_signed = float_of(bits_of(large) | (bits_of(x) & 0x80000000u));
  return a < 0.625f ? small : large_signed;
}

GPU_INLINE float gelu(float x) {
  const float inner = fused(0.044715f * x * x, x, x);
  return x / (1.0f + exp_of(-1.5957691216057308f * inner));
}

GPU_INLINE float bf16_to_float(uint16_t h) { return float_of(uint32_t(h) << 16); }

/// Round to nearest even, in integers where the result is no normal number, so that a device which
/// flushes those gives the same.
GPU_INLINE uint16_t float_to_half(float f) {
  const uint32_t bits = bits_of(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u | (magnitude >> 13 & 1023u));
  if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    if (magnitude < 0x33000000u) return uint16_t(sign);  // below half of the least subnormal
    const uint32_t shift = 126 - (magnitude >> 23), number = (magnitude & 0x7fffffu) | 0x800000u;
    const uint32_t whole = number >> shift, rest = number << (32 - shift);
    return uint16_t(sign | (whole + (rest > 0x80000000u || (rest == 0x80000000u && whole % 2))));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return uint16_t(sign | (rounded - 0x38000000u) >> 13);
}

/// Sums of 16 lanes, folded 16 to 8, 4, 2, 1: the sum of lanes 0 to 15 in each of them.
GPU_INLINE float fold16(float sum, int lane) {
  for (int i = 8; i > 0; i /= 2) sum = sum + shuffle_xor(sum, lane, i);
  return sum;
}

}  // namespace gpu
}  // namespace gemtp
