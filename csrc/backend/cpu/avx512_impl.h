// The kernels for AVX-512 (F, BW, DQ, VL): 16 lanes are one zmm register. Compiled twice, with and
// without VNNI's 8-bit dot products (GEMTP_AVX512_VNNI); GEMTP_TABLE and GEMTP_TABLE_NAME
// name the table. An emulation of the intrinsics may stand in for <immintrin.h>.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#pragma GCC diagnostic ignored "-Wuninitialized"  // its own headers: _mm512_undefined_ps
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#ifndef GEMTP_EMULATE_AVX512
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar_math.h"

namespace {

constexpr int kChains = 8;                         // two FMA units with a latency of 4
constexpr int kTileQueries = 8, kTileVectors = 2;  // 16 of the 32 registers are sums

// The hardware prefetcher alone reaches about three quarters of the memory's speed.
constexpr int64_t kBytesAhead = 4096;
constexpr int kStreams = 4, kStreamedRows = 2;
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

struct F32x16 {
  __m512 v;
};

inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }

inline F32x16 zero() { return {_mm512_setzero_ps()}; }
inline F32x16 set1(float s) { return {_mm512_set1_ps(s)}; }
inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32x16 load_n(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
inline void store(float* p, F32x16 v) { _mm512_storeu_ps(p, v.v); }
inline void store_n(float* p, F32x16 v, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), v.v);
}
inline __m256i load_halves(const uint16_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline F32x16 load_f16(const uint16_t* p) { return {_mm512_cvtph_ps(load_halves(p))}; }
inline F32x16 load_bf16(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_halves(p)), 16))};
}
inline __m128i load_16_bytes(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline F32x16 load_u8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_16_bytes(p)))};
}
inline F32x16 load_i8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_16_bytes(p)))};
}
inline void store_f16(uint16_t* p, F32x16 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void store_f16_n(uint16_t* p, F32x16 v, int64_t n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n),
                           _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 round_even(F32x16 v) {
  return {_mm512_roundscale_ps(v.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline F32x16 abs_of(F32x16 v) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), v.v)}; }
inline F32x16 with_sign(F32x16 v, F32x16 s) {
  return {_mm512_or_ps(v.v, _mm512_and_ps(_mm512_set1_ps(-0.0f), s.v))};
}
inline F32x16 power_of_two(F32x16 n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
inline F32x16 select_lt(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
inline F32x16 select_lanes(int64_t begin, int64_t end, F32x16 x, F32x16 y) {
  const __mmask16 lanes = static_cast<__mmask16>(first_lanes(end) & ~first_lanes(begin));
  return {_mm512_mask_blend_ps(lanes, y.v, x.v)};
}

inline __m256 upper_half(__m512 v) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
}
inline float fold(F32x16 v) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(v.v), upper_half(v.v));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
inline float max_of(F32x16 v) {
  const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(v.v), upper_half(v.v));
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

// Sums of the even and of the odd pairs of 16 quants, as int16.
inline int32_t pairs_of(__m128i q) {
  __m128i s = _mm_maddubs_epi16(_mm_set1_epi8(1), q);
  s = _mm_add_epi16(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
  s = _mm_add_epi16(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm_cvtsi128_si32(s);
}
inline void store_q8(gemtp_q8_rows to, F32x16 v0, F32x16 v1) {
  const __m128i a = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v0.v));
  const __m128i b = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v1.v));
  __m128i* out = reinterpret_cast<__m128i*>(to.q);
  _mm_storeu_si128(out, a);
  _mm_storeu_si128(out + 1, b);
  gemtp_q8_sums(to, pairs_of(a), pairs_of(b));
}

}  // namespace

#include "backend/cpu/vector_attention.h"
#include "backend/cpu/vector_kernels.h"
#include "backend/cpu/vector_matmul.h"

namespace {

inline __m512i load_bytes(const void* p) { return _mm512_load_si512(p); }

struct Four {  // consecutive quants
  int8_t byte[4];
};

// Keeps the pointer in a register, so that loads through it use constant offsets.
inline const Four* fours(const int8_t* q) {
#if defined(__GNUC__)
  asm("" : "+r"(q));
#endif
  return reinterpret_cast<const Four*>(q);
}

inline __m512i broadcast(const Four& x) {
  int32_t four;
  memcpy(&four, &x, 4);
  return _mm512_set1_epi32(four);
}

// Dot products run over bytes u >= 0 that stand for u - offset, so their sums begin with the
// offset's contribution.
#ifdef GEMTP_AVX512_VNNI
inline __m512i dot_begin(int32_t bias) {  // for nibbles: offset 8
  return _mm512_madd_epi16(_mm512_set1_epi32(bias), _mm512_set1_epi16(1));
}
inline __m512i dot_add(__m512i acc, __m512i u, const Four& x) {
#if defined(__GNUC__) && !defined(__clang__) && !defined(GEMTP_EMULATE_AVX512)
  // GCC makes one instruction of load and broadcast, of which four run per cycle.
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(u), "m"(x));
  return acc;
#else
  return _mm512_dpbusd_epi32(acc, u, broadcast(x));
#endif
}
inline __m512i dot_end(__m512i acc) { return acc; }
#else
// Sums in int16: a lane adds up 16 products of nibbles and the offset's contribution, together
// (u - 8) times an activation: at most 8 * 16 * 127 in size (15 * 16 * 127 without an offset).
inline __m512i dot_begin(int32_t bias) { return _mm512_set1_epi32(bias); }
inline __m512i dot_add(__m512i acc, __m512i u, const Four& x) {
  return _mm512_add_epi16(acc, _mm512_maddubs_epi16(u, broadcast(x)));
}
inline __m512i dot_end(__m512i acc) { return _mm512_madd_epi16(acc, _mm512_set1_epi16(1)); }
#endif

// ---- quants -------------------------------------------------------------------------------------

// unpack(w, u) unpacks a block to bytes >= 0, [8 groups of four k][16 output rows][4]; kMost is the
// largest of them. A block's weights stay in eight registers while the rows pass.

// Shifts to the left, or to the right if `shift` is negative; bits move between the bytes of a
// pair.
template <int kShift>
GEMTP_INLINE __m512i shift_pairs(__m512i v) {
  if constexpr (kShift < 0) return _mm512_srli_epi16(v, -kShift);
  return kShift == 0 ? v : _mm512_slli_epi16(v, kShift);
}

struct NibbleBytes {
  static constexpr int kBlockBytes = 256, kMost = 15;
  static GEMTP_INLINE void unpack(const PackedBlock& w, __m512i* u) {
    const __m512i low4 = _mm512_set1_epi8(15);
    GEMTP_UNROLL
    for (int g = 0; g < 4; ++g) {
      const __m512i both = load_bytes(w.quants + g * 64);
      u[g] = _mm512_and_si512(both, low4);
      u[g + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low4);
    }
  }
};

// Returns u plus the bits of `mask` in v.
GEMTP_INLINE __m512i with_bits(__m512i u, __m512i v, int mask) {
  return _mm512_or_si512(u, _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(mask))));
}

struct FiveBytes {
  static constexpr int kBlockBytes = 320, kMost = 31;
  static GEMTP_INLINE void unpack(const PackedBlock& w, __m512i* u) {
    NibbleBytes::unpack(w, u);
    const __m512i plane = load_bytes(w.quants + 256);
    u[0] = with_bits(u[0], shift_pairs<4>(plane), 16);
    u[1] = with_bits(u[1], shift_pairs<3>(plane), 16);
    u[2] = with_bits(u[2], shift_pairs<2>(plane), 16);
    u[3] = with_bits(u[3], shift_pairs<1>(plane), 16);
    u[4] = with_bits(u[4], plane, 16);
    u[5] = with_bits(u[5], shift_pairs<-1>(plane), 16);
    u[6] = with_bits(u[6], shift_pairs<-2>(plane), 16);
    u[7] = with_bits(u[7], shift_pairs<-3>(plane), 16);
  }
};

struct SixBytes {
  static constexpr int kBlockBytes = 384, kMost = 63;
  static GEMTP_INLINE void unpack(const PackedBlock& w, __m512i* u) {
    NibbleBytes::unpack(w, u);
    GEMTP_UNROLL
    for (int half = 0; half < 2; ++half, u += 4) {
      const __m512i plane = load_bytes(w.quants + 256 + half * 64);
      u[0] = with_bits(u[0], shift_pairs<4>(plane), 48);
      u[1] = with_bits(u[1], shift_pairs<2>(plane), 48);
      u[2] = with_bits(u[2], plane, 48);
      u[3] = with_bits(u[3], shift_pairs<-2>(plane), 48);
    }
  }
};

struct TableBytes {  // + 128
  static constexpr int kBlockBytes = 256, kMost = 255;
  static GEMTP_INLINE void unpack(const PackedBlock& w, __m512i* u) {
    const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.table));
    const __m512i table = _mm512_broadcast_i32x4(_mm_xor_si128(four, _mm_set1_epi8(-128)));
    NibbleBytes::unpack(w, u);
    GEMTP_UNROLL
    for (int g = 0; g < 8; ++g) u[g] = _mm512_shuffle_epi8(table, u[g]);
  }
};

struct SignedBytes {  // + 128
  static constexpr int kBlockBytes = 512, kMost = 255;
  static GEMTP_INLINE void unpack(const PackedBlock& w, __m512i* u) {
    GEMTP_UNROLL
    for (int g = 0; g < 8; ++g)
      u[g] = _mm512_xor_si512(load_bytes(w.quants + g * 64), _mm512_set1_epi8(-128));
  }
};

// ---- dots ---------------------------------------------------------------------------------------

// Adds the dot products of kGroups groups of bytes u <= kMost with one activation row to `sum`, in
// int32.
#ifdef GEMTP_AVX512_VNNI
template <int kMost, int kGroups>
GEMTP_INLINE __m512i add_dots(__m512i sum, const __m512i* u, const Four* x) {
  GEMTP_UNROLL
  for (int g = 0; g < kGroups; ++g) sum = dot_add(sum, u[g], x[g]);
  return sum;
}
#else
template <int kMost, int kGroups>
GEMTP_INLINE __m512i add_dots(__m512i sum, const __m512i* u, const Four* x) {
  const __m512i one = _mm512_set1_epi16(1);
  if constexpr (kMost < 64) {
    // An int16 lane holds two products of each group; this many groups fit.
    constexpr int kFit = 32767 / (2 * 127 * kMost),
                  kChain = kFit < kGroups ? kFit / 2 * 2 : kGroups;
    GEMTP_UNROLL
    for (int first = 0; first < kGroups; first += kChain) {
      __m512i pairs = _mm512_maddubs_epi16(u[first], broadcast(x[first]));
      GEMTP_UNROLL
      for (int g = first + 1; g < first + kChain; ++g)
        pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(u[g], broadcast(x[g])));
      sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, one));
    }
    return sum;
  } else {  // u = 16 high + low, so that both nibbles' sums fit
    const __m512i low4 = _mm512_set1_epi8(15);
    __m512i low = _mm512_setzero_si512(), high = low;
    GEMTP_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      const __m512i four = broadcast(x[g]);
      low = _mm512_add_epi16(low, _mm512_maddubs_epi16(_mm512_and_si512(u[g], low4), four));
      high = _mm512_add_epi16(
          high, _mm512_maddubs_epi16(_mm512_and_si512(_mm512_srli_epi16(u[g], 4), low4), four));
    }
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(low, one));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(high, _mm512_set1_epi16(16)));
  }
}
#endif

// Blocks with one scale. Quants are byte - kOffset, so a sum begins with the offset's contribution.
template <class Quants, int kOffset>
struct Whole {
  static constexpr int kBlockBytes = Quants::kBlockBytes, kDirectRows = GEMTP_PANEL;

  // -kOffset * (sum of the activations); bias holds -8 times that sum in two parts.
  static GEMTP_INLINE __m512i start(int32_t bias) {
    if constexpr (kOffset == 0) return _mm512_setzero_si512();
    return _mm512_madd_epi16(_mm512_set1_epi32(bias), _mm512_set1_epi16(kOffset / 8));
  }

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    __m512i u[8];
    Quants::unpack(w, u);
    const Four* q = fours(x.q);
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const __m512i sum = add_dots<Quants::kMost, 8>(start(x.bias[i]), u, q + i * 8);
      dot[i] = {_mm512_cvtepi32_ps(sum)};
    }
  }
};

// Blocks of two groups with scales of their own. Sums and products are integers below 2^24, which
// floats represent exactly.
template <class Quants, int kOffset>
struct Grouped {
  static constexpr int kBlockBytes = Quants::kBlockBytes, kDirectRows = GEMTP_PANEL;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    const __m512i offset = _mm512_set1_epi16(-kOffset);  // times both int16 of x.pairs
    const F32x16 scale0 = load_i8(w.groups), scale1 = load_i8(w.groups + 16);
    __m512i u[8];
    Quants::unpack(w, u);
    const Four* q = fours(x.q);
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i, q += 8) {
      const __m512i start0 = _mm512_madd_epi16(_mm512_set1_epi32(x.pairs[2 * i]), offset);
      const __m512i start1 = _mm512_madd_epi16(_mm512_set1_epi32(x.pairs[2 * i + 1]), offset);
      const __m512i dot0 = add_dots<Quants::kMost, 4>(start0, u, q);
      const __m512i dot1 = add_dots<Quants::kMost, 4>(start1, u + 4, q + 4);
      dot[i] =
          fma(F32x16{_mm512_cvtepi32_ps(dot1)}, scale1, F32x16{_mm512_cvtepi32_ps(dot0)} * scale0);
    }
  }
};

// Nibbles: their sums, with the offset's contribution, fit int16.
template <int kOffset>
struct Nibbles {
  static_assert(kOffset == 0 || kOffset == 8);
  static constexpr int kBlockBytes = NibbleBytes::kBlockBytes, kDirectRows = GEMTP_PANEL;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    __m512i u[8];
    NibbleBytes::unpack(w, u);
    const Four* q = fours(x.q);
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      __m512i sum = kOffset ? dot_begin(x.bias[i]) : _mm512_setzero_si512();
      GEMTP_UNROLL
      for (int g = 0; g < 8; ++g) sum = dot_add(sum, u[g], q[i * 8 + g]);
      dot[i] = {_mm512_cvtepi32_ps(dot_end(sum))};
    }
  }
};
template <int kOffset>
using Fives = Whole<FiveBytes, kOffset>;
using Sixes = Grouped<SixBytes, 32>;
using Table = Whole<TableBytes, 128>;
using GroupTable = Grouped<TableBytes, 128>;
using Bytes = Whole<SignedBytes, 128>;

}  // namespace

#include "backend/cpu/vector_table.h"
