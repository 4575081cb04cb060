// Replaces <immintrin.h> in the AVX-512 kernels by SIMDe's emulation, and by two halves of AVX2
// (for which the emulated objects are compiled) for intrinsics that SIMDe 0.7 lacks.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <immintrin.h>
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#include <stdint.h>
#include <string.h>

#define GEMTP_EMULATE_AVX512

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-sra")  // GCC 12 crashes on the emulated vectors in this pass
#endif

namespace {

// Sixteen lanes as two vectors of eight lanes of 32 or 16 bits.
template <class Half, class Whole>
struct Halves {
  Half half[2];
  explicit Halves(const Whole& v) {
    static_assert(sizeof(half) == sizeof(v));
    memcpy(half, &v, sizeof half);
  }
  Halves(Half low, Half high) : half{low, high} {}
  operator Whole() const {
    Whole v;
    memcpy(&v, half, sizeof v);
    return v;
  }
};
using F32Halves = Halves<__m256, simde__m512>;
using I32Halves = Halves<__m256i, simde__m512i>;
using I16Halves = Halves<__m128i, __m256i>;

inline simde__m512i emulate_cvtps_epi32(simde__m512 v) {
  const F32Halves f(v);
  return I32Halves(_mm256_cvtps_epi32(f.half[0]), _mm256_cvtps_epi32(f.half[1]));
}
inline simde__m512 emulate_cvtepi32_ps(simde__m512i v) {
  const I32Halves i(v);
  return F32Halves(_mm256_cvtepi32_ps(i.half[0]), _mm256_cvtepi32_ps(i.half[1]));
}
inline simde__m512 emulate_cvtph_ps(__m256i v) {
  const I16Halves h(v);
  return F32Halves(_mm256_cvtph_ps(h.half[0]), _mm256_cvtph_ps(h.half[1]));
}
inline __m256i emulate_cvtps_ph(simde__m512 v) {
  const F32Halves f(v);
  return I16Halves(_mm256_cvtps_ph(f.half[0], _MM_FROUND_TO_NEAREST_INT),
                   _mm256_cvtps_ph(f.half[1], _MM_FROUND_TO_NEAREST_INT));
}
inline simde__m512i emulate_cvtepu16_epi32(__m256i v) {
  const I16Halves h(v);
  return I32Halves(_mm256_cvtepu16_epi32(h.half[0]), _mm256_cvtepu16_epi32(h.half[1]));
}
inline simde__m512i emulate_cvtepu8_epi32(__m128i v) {
  return I32Halves(_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)));
}
inline simde__m512i emulate_cvtepi8_epi32(__m128i v) {
  return I32Halves(_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)));
}
inline simde__m512 emulate_maskz_loadu_ps(uint16_t mask, const float* p) {
  float lanes[16] = {};
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) lanes[i] = p[i];
  return simde_mm512_loadu_ps(lanes);
}
inline void emulate_mask_storeu_ps(float* p, uint16_t mask, simde__m512 v) {
  float lanes[16];
  memcpy(lanes, &v, sizeof lanes);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) p[i] = lanes[i];
}
inline __m256i emulate_maskz_loadu_epi16(uint16_t mask, const uint16_t* p) {
  uint16_t lanes[16] = {};
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) lanes[i] = p[i];
  __m256i v;
  memcpy(&v, lanes, sizeof v);
  return v;
}
inline void emulate_mask_storeu_epi16(uint16_t* p, uint16_t mask, __m256i v) {
  uint16_t lanes[16];
  memcpy(lanes, &v, sizeof lanes);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) p[i] = lanes[i];
}

}  // namespace

#undef _mm512_cvtps_epi32
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtph_ps
#undef _mm512_cvtps_ph
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtepi8_epi32
#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm256_maskz_loadu_epi16
#undef _mm256_mask_storeu_epi16
#undef _mm512_madd_epi16
#define _mm512_cvtps_epi32(v) emulate_cvtps_epi32(v)
#define _mm512_cvtepi32_ps(v) emulate_cvtepi32_ps(v)
#define _mm512_cvtph_ps(v) emulate_cvtph_ps(v)
#define _mm512_cvtps_ph(v, rounding) emulate_cvtps_ph(v)
#define _mm512_cvtepu16_epi32(v) emulate_cvtepu16_epi32(v)
#define _mm512_cvtepu8_epi32(v) emulate_cvtepu8_epi32(v)
#define _mm512_cvtepi8_epi32(v) emulate_cvtepi8_epi32(v)
#define _mm512_maskz_loadu_ps(mask, p) emulate_maskz_loadu_ps(mask, p)
#define _mm512_mask_storeu_ps(p, mask, v) emulate_mask_storeu_ps(p, mask, v)
#define _mm256_maskz_loadu_epi16(mask, p) emulate_maskz_loadu_epi16(mask, p)
#define _mm256_mask_storeu_epi16(p, mask, v) emulate_mask_storeu_epi16(p, mask, v)
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)  // the macro of 0.7.4 is wrong
