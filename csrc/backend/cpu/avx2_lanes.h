// 16 lanes in two ymm registers of AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar_math.h"

namespace {

constexpr int kChains = 4;  // 8 registers of accumulators: two FMA units with a latency of 4
constexpr int kTileQueries = 6, kTileVectors = 1;  // 12 of the 16 registers are sums

// 10 to 30% faster than the hardware prefetcher alone (Zen 3).
constexpr int64_t kBytesAhead = 4096;
constexpr int kStreams = 4, kStreamedRows = 2;
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

struct F32x16 {
  __m256 lo, hi;
};

inline F32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F32x16 set1(float s) { return {_mm256_set1_ps(s), _mm256_set1_ps(s)}; }
inline F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F32x16 v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}

struct Mask16 {
  __m256i lo, hi;
};

// Lanes 0..n-1.
inline Mask16 first_lanes(int64_t n) {
  alignas(32) static const int32_t kOnesThenZeros[32] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                         -1, -1, -1, -1, -1, -1, -1, -1};
  const int32_t* p = kOnesThenZeros + 16 - n;
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}

inline F32x16 load_n(const float* p, int64_t n) {
  if (n == 16) return load(p);
  const Mask16 m = first_lanes(n);
  return {_mm256_maskload_ps(p, m.lo), _mm256_maskload_ps(p + 8, m.hi)};
}
inline void store_n(float* p, F32x16 v, int64_t n) {
  if (n == 16) return store(p, v);
  const Mask16 m = first_lanes(n);
  _mm256_maskstore_ps(p, m.lo, v.lo);
  _mm256_maskstore_ps(p + 8, m.hi, v.hi);
}

inline F32x16 load_f16(const uint16_t* p) {
  const __m128i* v = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(v)), _mm256_cvtph_ps(_mm_loadu_si128(v + 1))};
}
inline __m256 widen_bf16(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline F32x16 load_bf16(const uint16_t* p) { return {widen_bf16(p), widen_bf16(p + 8)}; }
inline F32x16 load_u8(const uint8_t* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(v, v)))};
}
inline F32x16 load_i8(const uint8_t* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(v, v)))};
}
inline void store_f16(uint16_t* p, F32x16 v) {
  __m128i* out = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(out, _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(out + 1, _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_f16_n(uint16_t* p, F32x16 v, int64_t n) {
  uint16_t all[16];
  store_f16(all, v);
  memcpy(p, all, static_cast<size_t>(n) * 2);
}

inline F32x16 operator+(F32x16 a, F32x16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 max(F32x16 a, F32x16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline F32x16 min(F32x16 a, F32x16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline F32x16 round_even(F32x16 v) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(v.lo, kMode), _mm256_round_ps(v.hi, kMode)};
}
inline F32x16 abs_of(F32x16 v) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, v.lo), _mm256_andnot_ps(sign, v.hi)};
}
inline F32x16 with_sign(F32x16 v, F32x16 s) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(v.lo, _mm256_and_ps(sign, s.lo)),
          _mm256_or_ps(v.hi, _mm256_and_ps(sign, s.hi))};
}
inline __m256 power_of_two(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline F32x16 power_of_two(F32x16 n) { return {power_of_two(n.lo), power_of_two(n.hi)}; }
inline F32x16 select_lt(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline F32x16 select_lanes(int64_t begin, int64_t end, F32x16 x, F32x16 y) {
  const Mask16 before = first_lanes(begin), until = first_lanes(end);
  const __m256 lo = _mm256_castsi256_ps(_mm256_andnot_si256(before.lo, until.lo));
  const __m256 hi = _mm256_castsi256_ps(_mm256_andnot_si256(before.hi, until.hi));
  return {_mm256_blendv_ps(y.lo, x.lo, lo), _mm256_blendv_ps(y.hi, x.hi, hi)};
}

inline float fold(F32x16 v) {
  const __m256 s8 = _mm256_add_ps(v.lo, v.hi);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
inline float max_of(F32x16 v) {
  const __m256 s8 = _mm256_max_ps(v.lo, v.hi);
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

inline void store_q8(gemtp_q8_rows to, F32x16 v0, F32x16 v1) {
  const __m256i a = _mm256_cvtps_epi32(v0.lo), b = _mm256_cvtps_epi32(v0.hi);
  const __m256i c = _mm256_cvtps_epi32(v1.lo), d = _mm256_cvtps_epi32(v1.hi);
  // The packs work within 128-bit halves; the permutation puts the groups of four back in order.
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i q = _mm256_permutevar8x32_epi32(bytes, order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.q), q);
  // Sums of pairs; then of all even and all odd ones within each 128-bit half.
  __m256i s = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
  s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
  s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
  gemtp_q8_sums(to, _mm256_cvtsi256_si32(s), _mm256_extract_epi32(s, 4));
}

}  // namespace
