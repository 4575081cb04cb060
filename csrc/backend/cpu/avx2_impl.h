// The kernels for AVX2 + FMA + F16C: 16 lanes are two ymm registers. Compiled twice, with and
// without AVX-VNNI's 8-bit dot products (GEMTP_AVX_VNNI); GEMTP_TABLE and GEMTP_TABLE_NAME name
// the table.
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels.h"

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

inline int32_t store_q8(int8_t* q, F32x16 v0, F32x16 v1) {
  const __m256i a = _mm256_cvtps_epi32(v0.lo), b = _mm256_cvtps_epi32(v0.hi);
  const __m256i c = _mm256_cvtps_epi32(v1.lo), d = _mm256_cvtps_epi32(v1.hi);
  // The packs work within 128-bit halves; the permutation puts the groups of four back in order.
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_permutevar8x32_epi32(bytes, order));
  const __m256i s8 = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm_cvtsi128_si32(s);
}

}  // namespace

#include "backend/cpu/vector_attention.h"
#include "backend/cpu/vector_kernels.h"
#include "backend/cpu/vector_matmul.h"

namespace {

inline __m256i load_bytes(const void* p) {
  return _mm256_load_si256(static_cast<const __m256i*>(p));
}
inline void store_bytes(void* p, __m256i v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }

// Four consecutive quants in every group of four bytes.
inline __m256i broadcast4(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

// Stops the compiler from moving what makes v before, or what uses it after, its neighbours, and
// from regrouping a sum into a tree whose leaves do not fit the registers.
inline void keep(__m256i& v) {
#if defined(__GNUC__)
  asm("" : "+x"(v));
#else
  (void)v;
#endif
}

// p, of whose contents the compiler knows nothing any more: it would keep them in registers that
// the sums need.
inline const uint8_t* in_memory(const uint8_t* p) {
#if defined(__GNUC__)
  asm("" : "+r"(p) : : "memory");
#endif
  return p;
}

// The dots are of bytes u >= 0 with weight = u - offset, so they begin with what the offset adds.
#ifdef GEMTP_AVX_VNNI
inline __m256i dot_begin(int32_t bias) {  // of nibbles: offset 8
  return _mm256_madd_epi16(_mm256_set1_epi32(bias), _mm256_set1_epi16(1));
}
inline void dot_add(__m256i& lo, __m256i& hi, __m256i u_lo, __m256i u_hi, __m256i x) {
  lo = _mm256_dpbusd_avx_epi32(lo, u_lo, x);
  hi = _mm256_dpbusd_avx_epi32(hi, u_hi, x);
}
inline __m256i dot_end(__m256i acc) { return acc; }
#else
// Sums in int16: a lane adds up 16 products of nibbles with its half of the bias, which is
// (u - 4) times its own 16 quants and -4 times the other 16: at most (11 + 4) * 16 * 127 in size.
inline __m256i dot_begin(int32_t bias) { return _mm256_set1_epi32(bias); }
inline void dot_add(__m256i& lo, __m256i& hi, __m256i u_lo, __m256i u_hi, __m256i x) {
  // Both products before both sums: the other order costs 5% (Zen 3).
  __m256i a = _mm256_maddubs_epi16(u_lo, x), b = _mm256_maddubs_epi16(u_hi, x);
  keep(a);
  keep(b);
  lo = _mm256_add_epi16(lo, a);
  hi = _mm256_add_epi16(hi, b);
}
inline __m256i dot_end(__m256i acc) { return _mm256_madd_epi16(acc, _mm256_set1_epi16(1)); }
#endif

// The sums of a few rows with 16 output rows.
template <int kRows>
struct Dots {
  __m256i lo[kRows], hi[kRows];

  explicit GEMTP_INLINE Dots(const int32_t* bias) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) lo[i] = hi[i] = dot_begin(bias[i]);
  }
  // u_lo, u_hi: the same four k of output rows 0..7 and 8..15; q: those k of the first row.
  GEMTP_INLINE void add(__m256i u_lo, __m256i u_hi, const int8_t* q) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      dot_add(lo[i], hi[i], u_lo, u_hi, broadcast4(q + i * kBlock));
      keep(lo[i]);
      keep(hi[i]);
    }
  }
  GEMTP_INLINE void end(F32x16* dot) const {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i)
      dot[i] = {_mm256_cvtepi32_ps(dot_end(lo[i])), _mm256_cvtepi32_ps(dot_end(hi[i]))};
  }
};

struct Q4_0 {
  static constexpr int kBlockBytes = 256, kUnpackedBytes = 512;
  static constexpr int kDirectRows = 4, kGroup = 4;

  template <int kRows>
  static GEMTP_INLINE void dots(const uint8_t* w, const int8_t* q, const int32_t* bias,
                                F32x16* dot) {
    const __m256i low4 = _mm256_set1_epi8(15);
    Dots<kRows> sum(bias);
    GEMTP_NO_UNROLL
    for (int g = 0; g < 4; ++g) {
      const __m256i lo = load_bytes(w + g * 64), hi = load_bytes(w + g * 64 + 32);
      sum.add(_mm256_and_si256(lo, low4), _mm256_and_si256(hi, low4), q + g * 4);
      sum.add(_mm256_and_si256(_mm256_srli_epi16(lo, 4), low4),
              _mm256_and_si256(_mm256_srli_epi16(hi, 4), low4), q + g * 4 + 16);
    }
    sum.end(dot);
  }

  // One nibble a byte, [8 groups of four k][16 output rows][4].
  static GEMTP_INLINE const uint8_t* unpack(const uint8_t* w, uint8_t* u) {
    const __m256i low4 = _mm256_set1_epi8(15);
    GEMTP_UNROLL
    for (int i = 0; i < 256; i += 32) {
      const __m256i both = load_bytes(w + i);
      store_bytes(u + i, _mm256_and_si256(both, low4));
      store_bytes(u + 256 + i, _mm256_and_si256(_mm256_srli_epi16(both, 4), low4));
    }
    return u;
  }

  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const int8_t* q, const int32_t* bias,
                                         F32x16* dot) {
    Dots<kRows> sum(bias);
    u = in_memory(u);
    GEMTP_UNROLL
    for (int g = 0; g < 8; ++g)
      sum.add(load_bytes(u + g * 64), load_bytes(u + g * 64 + 32), q + g * 4);
    sum.end(dot);
  }
};

struct Q8_0 {
  static constexpr int kBlockBytes = 512, kUnpackedBytes = 64;  // used as it is
  static constexpr int kDirectRows = 4, kGroup = 4;

  template <int kRows>
  static GEMTP_INLINE void dots(const uint8_t* w, const int8_t* q, const int32_t* bias,
                                F32x16* dot) {
    __m256i lo[kRows], hi[kRows];
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) lo[i] = hi[i] = begin(bias[i]);
    GEMTP_NO_UNROLL
    for (int g = 0; g < 8; ++g) {
      const Weights w_lo(load_bytes(w + g * 64)), w_hi(load_bytes(w + g * 64 + 32));
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const __m256i x = broadcast4(q + i * kBlock + g * 4);
        lo[i] = w_lo.add_dot(lo[i], x);
        hi[i] = w_hi.add_dot(hi[i], x);
      }
    }
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) dot[i] = {_mm256_cvtepi32_ps(lo[i]), _mm256_cvtepi32_ps(hi[i])};
  }

  static GEMTP_INLINE const uint8_t* unpack(const uint8_t* w, uint8_t*) { return w; }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* w, const int8_t* q, const int32_t* bias,
                                         F32x16* dot) {
    dots<kRows>(w, q, bias, dot);
  }

#ifdef GEMTP_AVX_VNNI
  static __m256i begin(int32_t bias) {  // -128 * sum
    return _mm256_madd_epi16(_mm256_set1_epi32(bias), _mm256_set1_epi16(16));
  }
  struct Weights {
    __m256i u;  // w + 128
    explicit Weights(__m256i w) : u(_mm256_xor_si256(w, _mm256_set1_epi8(-128))) {}
    __m256i add_dot(__m256i acc, __m256i x) const { return _mm256_dpbusd_avx_epi32(acc, u, x); }
  };
#else
  static __m256i begin(int32_t) { return _mm256_setzero_si256(); }
  struct Weights {
    __m256i w, size;  // |w| <= 128 as unsigned: two products of at most 128 * 127 fit int16
    explicit Weights(__m256i v) : w(v), size(_mm256_abs_epi8(v)) {}
    __m256i add_dot(__m256i acc, __m256i x) const {
      const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x, w));
      return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
  };
#endif
};

}  // namespace

#include "backend/cpu/vector_table.h"
