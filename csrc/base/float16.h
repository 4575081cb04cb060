// Conversions of f16 and bf16, as 16-bit patterns. They round to nearest even and give the same
// bits as the hardware conversions.
#pragma once

#include <stdint.h>
#include <string.h>

static inline float gemtp_f32_from_bits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

static inline uint32_t gemtp_f32_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}

static inline float gemtp_f16_to_f32(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31u;
  const uint32_t mantissa = h & 1023u;
  if (exponent == 31)
    return gemtp_f32_from_bits(sign | 0x7f800000u | (mantissa ? (mantissa << 13) | 0x400000u : 0));
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact
    const float magnitude = (float)mantissa * 5.9604644775390625e-8f;
    return gemtp_f32_from_bits(sign | gemtp_f32_bits(magnitude));
  }
  return gemtp_f32_from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

static inline uint16_t gemtp_f32_to_f16(float f) {
  const uint32_t bits = gemtp_f32_bits(f);
  const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 1023u));  // NaN
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);    // rounds to infinity
  if (magnitude < 0x38800000u) {  // subnormal: let the float unit round at 2^-24
    const float shifted = gemtp_f32_from_bits(magnitude) + 0.5f;
    return (uint16_t)(sign | (gemtp_f32_bits(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

static inline float gemtp_bf16_to_f32(uint16_t h) { return gemtp_f32_from_bits((uint32_t)h << 16); }
