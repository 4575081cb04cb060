/* The elementary functions every kernel table computes, as the one sequence of operations that
 * defines their bits. SIMD files repeat these operations lane by lane (and may call these for the
 * last few elements). Plain C, static, no library calls but fma and rounding.
 *
 * Comparisons are written so that they mean what x86 minps/maxps mean: max(a, b) = a > b ? a : b.
 */
#pragma once

#include <stdint.h>

#include "backend/cpu/kernels.h"
#include "base/float16.h"

/* exp: x = n ln2 + r, e^r = 1 + r + r^2 P(r). P interpolates (e^r - 1 - r)/r^2 at Chebyshev nodes
 * of [-ln2/2, ln2/2]; the relative error of the whole stays below 1.6 * 2^-24. */
#define GEMTP_EXP_LOW -27.7f /* e^-27.7 is just above GEMTP_TINY; below: exactly 0 */
#define GEMTP_EXP_HIGH 88.0f /* above: e^88 */
#define GEMTP_LOG2E 1.44269504088896341f
#define GEMTP_LN2_HI 0.693359375f
#define GEMTP_LN2_LO -2.12194440e-4f
#define GEMTP_EXP_P0 0.5f
#define GEMTP_EXP_P1 0.16666576266288757f
#define GEMTP_EXP_P2 0.0416666641831398f
#define GEMTP_EXP_P3 0.008363178931176662f
#define GEMTP_EXP_P4 0.001391894300468266f

/* tanh for |x| < 0.625: x + x z Q(z), z = x^2, Q interpolates (tanh(x)/x - 1)/z at Chebyshev nodes;
 * beyond: 1 - 2 / (e^(2|x|) + 1) with the sign of x. */
#define GEMTP_TANH_SMALL 0.625f
#define GEMTP_TANH_Q0 -0.333333283662796f
#define GEMTP_TANH_Q1 0.1333276927471161f
#define GEMTP_TANH_Q2 -0.05385090783238411f
#define GEMTP_TANH_Q3 0.020997179672122f
#define GEMTP_TANH_Q4 -0.006096714176237583f

#define GEMTP_GELU_CUBIC 0.044715f
#define GEMTP_GELU_SCALE -1.5957691216057308f /* -2 sqrt(2/pi) */

/* The three operations of IEEE 754 that C spells as library functions. Not through <math.h> where
 * it can be avoided: in C++ it brings inline functions along. */
#if defined(_MSC_VER) && !defined(__clang__)
#include <math.h>
static inline float gemtp_fma(float a, float b, float c) { return fmaf(a, b, c); }
static inline float gemtp_rint(float x) { return rintf(x); }
static inline float gemtp_sqrt(float x) { return sqrtf(x); }
#else
static inline float gemtp_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float gemtp_rint(float x) { return __builtin_rintf(x); }
static inline float gemtp_sqrt(float x) { return __builtin_sqrtf(x); }
#endif

static inline float gemtp_flush(float x) {
  const float size = gemtp_f32_from_bits(gemtp_f32_bits(x) & 0x7fffffffu);
  return size < GEMTP_TINY ? 0.0f : x;
}

static inline float gemtp_exp(float x) {
  const float low = GEMTP_EXP_LOW, high = GEMTP_EXP_HIGH;
  float c = x > low ? x : low; /* also takes a NaN to `low` */
  c = c < high ? c : high;
  const float n = gemtp_rint(c * GEMTP_LOG2E);
  float r = gemtp_fma(-n, GEMTP_LN2_HI, c);
  r = gemtp_fma(-n, GEMTP_LN2_LO, r);
  float p = GEMTP_EXP_P4;
  p = gemtp_fma(p, r, GEMTP_EXP_P3);
  p = gemtp_fma(p, r, GEMTP_EXP_P2);
  p = gemtp_fma(p, r, GEMTP_EXP_P1);
  p = gemtp_fma(p, r, GEMTP_EXP_P0);
  float e = gemtp_fma(p, r * r, r) + 1.0f;
  e = e * gemtp_f32_from_bits((uint32_t)((int32_t)n + 127) << 23);
  return x < low ? 0.0f : e;
}

static inline float gemtp_tanh(float x) {
  const float a = gemtp_f32_from_bits(gemtp_f32_bits(x) & 0x7fffffffu);
  const float z = x * x;
  float q = GEMTP_TANH_Q4;
  q = gemtp_fma(q, z, GEMTP_TANH_Q3);
  q = gemtp_fma(q, z, GEMTP_TANH_Q2);
  q = gemtp_fma(q, z, GEMTP_TANH_Q1);
  q = gemtp_fma(q, z, GEMTP_TANH_Q0);
  const float small = gemtp_fma(x * z, q, x);
  const float large = 1.0f - 2.0f / (gemtp_exp(a + a) + 1.0f);
  const float large_signed =
      gemtp_f32_from_bits(gemtp_f32_bits(large) | (gemtp_f32_bits(x) & 0x80000000u));
  return a < GEMTP_TANH_SMALL ? small : large_signed;
}

/* gelu(x), tanh form: 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3). */
static inline float gemtp_gelu(float x) {
  const float inner = gemtp_fma(GEMTP_GELU_CUBIC * x * x, x, x);
  return x / (1.0f + gemtp_exp(GEMTP_GELU_SCALE * inner));
}

static inline int32_t gemtp_two_int16(int32_t low, int32_t high) {
  return (int32_t)((uint32_t)high << 16 | ((uint32_t)low & 0xffffu));
}

/* The row's place in the next block of a panel of n rows. */
static inline gemtp_q8_rows gemtp_q8_next(gemtp_q8_rows r, int64_t n) {
  r.q += n * GEMTP_BLOCK;
  r.d += n;
  r.bias += n;
  r.pairs += 2 * n;
  r.sum += n;
  return r;
}

/* The sum of the quants that an entry of `pairs` stands for. */
static inline float gemtp_sum_of_pairs(int32_t pairs) {
  return (float)((int16_t)(pairs & 0xffff) + (pairs >> 16));
}

/* What gemtp_q8_rows holds of a block besides quants and scale, from its two `pairs`. */
static inline void gemtp_q8_sums(gemtp_q8_rows to, int32_t first, int32_t second) {
  const int32_t even[2] = {(int16_t)(first & 0xffff), (int16_t)(second & 0xffff)};
  const int32_t odd[2] = {first >> 16, second >> 16};
  to.pairs[0] = first;
  to.pairs[1] = second;
  *to.bias = gemtp_two_int16(-8 * (even[0] + even[1]), -8 * (odd[0] + odd[1]));
  *to.sum = *to.d * (float)(even[0] + even[1] + odd[0] + odd[1]);
}
