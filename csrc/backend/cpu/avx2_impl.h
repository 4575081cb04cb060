// The kernels for AVX2 + FMA + F16C. Compiled twice, with and without AVX-VNNI's 8-bit dot products
// (GEMTP_AVX_VNNI); GEMTP_TABLE and GEMTP_TABLE_NAME name the table.
#include "backend/cpu/avx2_lanes.h"

#include "backend/cpu/vector_attention.h"
#include "backend/cpu/vector_kernels.h"
#include "backend/cpu/vector_matmul.h"

namespace {

inline __m256i load_bytes(const void* p) {
  return _mm256_load_si256(static_cast<const __m256i*>(p));
}
inline __m256i zero_bytes() { return _mm256_setzero_si256(); }
inline void store_bytes(void* p, __m256i v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }

// Four consecutive quants in every group of four bytes.
inline __m256i broadcast4(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

// Keeps the computation and the uses of v where they are written. Otherwise the compiler moves them
// past their neighbours, or regroups a sum into a tree whose leaves do not fit the registers.
inline void keep(__m256i& v) {
#if defined(__GNUC__)
  asm("" : "+x"(v));
#else
  (void)v;
#endif
}

// Returns p and hides its contents from the compiler, which would otherwise keep them in registers
// that the sums need.
inline const uint8_t* in_memory(const uint8_t* p) {
#if defined(__GNUC__)
  asm("" : "+r"(p) : : "memory");
#endif
  return p;
}

// Dot products of a few activation rows with 16 output rows, whose quants are bytes u < 32 that
// stand for u - kOffset.
#ifdef GEMTP_AVX_VNNI
template <int kOffset>
GEMTP_INLINE __m256i dot_begin(int32_t bias, bool) {
  return _mm256_madd_epi16(_mm256_set1_epi32(bias), _mm256_set1_epi16(kOffset / 8));
}
inline void dot_add(__m256i& lo, __m256i& hi, __m256i u_lo, __m256i u_hi, __m256i x) {
  lo = _mm256_dpbusd_avx_epi32(lo, u_lo, x);
  hi = _mm256_dpbusd_avx_epi32(hi, u_hi, x);
}
template <int kOffset>
GEMTP_INLINE __m256i dot_end(__m256i acc, int32_t, bool) {
  return acc;
}
#else
// Sums in int16: each adds up 16 products. Products of nibbles fit; those of fives fit once 16
// times the activations has been subtracted (at most 16 * 127 * 16).
template <int kOffset>
GEMTP_INLINE __m256i dot_begin(int32_t bias, bool fives) {
  const __m256i eight = _mm256_set1_epi32(bias);
  return fives ? _mm256_slli_epi16(eight, 1) : kOffset ? eight : zero_bytes();
}
inline void dot_add(__m256i& lo, __m256i& hi, __m256i u_lo, __m256i u_hi, __m256i x) {
  // Both products before both sums: the other order costs 5% (Zen 3).
  __m256i a = _mm256_maddubs_epi16(u_lo, x), b = _mm256_maddubs_epi16(u_hi, x);
  keep(a);
  keep(b);
  lo = _mm256_add_epi16(lo, a);
  hi = _mm256_add_epi16(hi, b);
}
template <int kOffset>
GEMTP_INLINE __m256i dot_end(__m256i acc, int32_t bias, bool fives) {
  const __m256i sum = _mm256_madd_epi16(acc, _mm256_set1_epi16(1));
  if (!fives || kOffset) return sum;
  const __m256i back = _mm256_madd_epi16(_mm256_set1_epi32(bias), _mm256_set1_epi16(-2));
  return _mm256_add_epi32(sum, back);
}
#endif

template <int kRows, int kOffset, bool kFives>
struct Dots {
  __m256i lo[kRows], hi[kRows];

  explicit GEMTP_INLINE Dots(const int32_t* bias) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) lo[i] = hi[i] = dot_begin<kOffset>(bias[i], kFives);
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
  GEMTP_INLINE void end(const int32_t* bias, F32x16* dot) const {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i)
      dot[i] = {_mm256_cvtepi32_ps(dot_end<kOffset>(lo[i], bias[i], kFives)),
                _mm256_cvtepi32_ps(dot_end<kOffset>(hi[i], bias[i], kFives))};
  }
};

// The same for unpacked bytes.
template <int kRows, int kOffset, bool kFives>
GEMTP_INLINE void dots_of_bytes(const uint8_t* u, const ActivationBlock& x, F32x16* dot) {
  Dots<kRows, kOffset, kFives> sum(x.bias);
  u = in_memory(u);
  GEMTP_UNROLL
  for (int g = 0; g < 8; ++g)
    sum.add(load_bytes(u + g * 64), load_bytes(u + g * 64 + 32), x.q + g * 4);
  sum.end(x.bias, dot);
}

// Quants of group g (of 8) for the 8 output rows from 8 * side on, one byte each.
GEMTP_INLINE __m256i nibbles_at(const uint8_t* w, int g, int side) {
  const __m256i both = load_bytes(w + g % 4 * 64 + side * 32);
  return _mm256_and_si256(g < 4 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
}
GEMTP_INLINE __m256i fives_at(const uint8_t* w, int g, int side) {
  const __m256i plane = load_bytes(w + 256 + side * 32);
  const __m256i bit4 = g < 4 ? _mm256_slli_epi16(plane, 4 - g) : _mm256_srli_epi16(plane, g - 4);
  return _mm256_or_si256(nibbles_at(w, g, side), _mm256_and_si256(bit4, _mm256_set1_epi8(16)));
}
GEMTP_INLINE __m256i sixes_at(const uint8_t* w, int g, int side) {
  const __m256i plane = load_bytes(w + 256 + g / 4 * 64 + side * 32);
  const int at = g % 4 * 2;
  const __m256i bits = at < 4 ? _mm256_slli_epi16(plane, 4 - at) : _mm256_srli_epi16(plane, at - 4);
  return _mm256_or_si256(nibbles_at(w, g, side), _mm256_and_si256(bits, _mm256_set1_epi8(48)));
}
GEMTP_INLINE __m256i table_at(const uint8_t* w, const int8_t* table, int g, int side) {
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), nibbles_at(w, g, side));
}
GEMTP_INLINE __m256i bytes_at(const uint8_t* u, int g, int side) {
  return load_bytes(u + g * 64 + side * 32);
}

// Unpacks all groups to bytes, [8 groups of four k][16 output rows][4].
template <class At>
GEMTP_INLINE const uint8_t* unpack_by(At at, uint8_t* u) {
  GEMTP_UNROLL
  for (int g = 0; g < 8; ++g) {
    store_bytes(u + g * 64, at(g, 0));
    store_bytes(u + g * 64 + 32, at(g, 1));
  }
  return u;
}

// Scales of one group of 8 output rows: each an int16, twice in a row.
GEMTP_INLINE __m256i group_scales(const uint8_t* groups, int half, int side) {
  const __m128i v =
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(groups + half * 16 + side * 8));
  return _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(v, v));
}

template <int kOffset>
struct Nibbles {
  static constexpr int kBlockBytes = 256, kUnpackedBytes = 512;
  static constexpr int kDirectRows = 4, kGroup = 4;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    const __m256i low4 = _mm256_set1_epi8(15);
    Dots<kRows, kOffset, false> sum(x.bias);
    GEMTP_NO_UNROLL
    for (int g = 0; g < 4; ++g) {
      const __m256i lo = load_bytes(w.quants + g * 64), hi = load_bytes(w.quants + g * 64 + 32);
      sum.add(_mm256_and_si256(lo, low4), _mm256_and_si256(hi, low4), x.q + g * 4);
      sum.add(_mm256_and_si256(_mm256_srli_epi16(lo, 4), low4),
              _mm256_and_si256(_mm256_srli_epi16(hi, 4), low4), x.q + g * 4 + 16);
    }
    sum.end(x.bias, dot);
  }

  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& w, uint8_t* u) {
    return unpack_by([&](int g, int side) { return nibbles_at(w.quants, g, side); }, u);
  }

  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock&,
                                         const ActivationBlock& x, F32x16* dot) {
    dots_of_bytes<kRows, kOffset, false>(u, x, dot);
  }
};

template <int kOffset>
struct Fives {
  static constexpr int kBlockBytes = 320, kUnpackedBytes = 512;
  static constexpr int kDirectRows = 4, kGroup = 4;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    Dots<kRows, kOffset, true> sum(x.bias);
    GEMTP_UNROLL
    for (int g = 0; g < 8; ++g)
      sum.add(fives_at(w.quants, g, 0), fives_at(w.quants, g, 1), x.q + g * 4);
    sum.end(x.bias, dot);
  }
  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& w, uint8_t* u) {
    return unpack_by([&](int g, int side) { return fives_at(w.quants, g, side); }, u);
  }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock&,
                                         const ActivationBlock& x, F32x16* dot) {
    dots_of_bytes<kRows, kOffset, true>(u, x, dot);
  }
};

// Each int16 adds up the 8 products of its two k in a group of 16, minus 32 times the activations:
// at most 8 * 127 * 32 in size. The groups' scales are applied to these sums.
struct Sixes {
  static constexpr int kBlockBytes = 384, kUnpackedBytes = 512;
  static constexpr int kDirectRows = 2, kGroup = 4;

  // at(g, side) returns the bytes of a group of four k.
  template <int kRows, class At>
  static GEMTP_INLINE void dots_of(At at, const PackedBlock& w, const ActivationBlock& x,
                                   F32x16* dot) {
    __m256i lo[kRows], hi[kRows];  // of both groups of 16
    GEMTP_UNROLL
    for (int half = 0; half < 2; ++half) {
      __m256i sum_lo[kRows], sum_hi[kRows];
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i)
        sum_lo[i] = sum_hi[i] = _mm256_sub_epi16(
            zero_bytes(), _mm256_slli_epi16(_mm256_set1_epi32(x.pairs[2 * i + half]), 5));
      GEMTP_UNROLL
      for (int g = 4 * half; g < 4 * half + 4; ++g) {
        const __m256i u_lo = at(g, 0), u_hi = at(g, 1);
        GEMTP_UNROLL
        for (int i = 0; i < kRows; ++i) {
          const __m256i four = broadcast4(x.q + i * kBlock + g * 4);
          sum_lo[i] = _mm256_add_epi16(sum_lo[i], _mm256_maddubs_epi16(u_lo, four));
          sum_hi[i] = _mm256_add_epi16(sum_hi[i], _mm256_maddubs_epi16(u_hi, four));
        }
      }
      const __m256i scale_lo = group_scales(w.groups, half, 0);
      const __m256i scale_hi = group_scales(w.groups, half, 1);
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const __m256i a = _mm256_madd_epi16(sum_lo[i], scale_lo);
        const __m256i b = _mm256_madd_epi16(sum_hi[i], scale_hi);
        lo[i] = half ? _mm256_add_epi32(lo[i], a) : a;
        hi[i] = half ? _mm256_add_epi32(hi[i], b) : b;
      }
    }
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) dot[i] = {_mm256_cvtepi32_ps(lo[i]), _mm256_cvtepi32_ps(hi[i])};
  }

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    dots_of<kRows>([&](int g, int side) { return sixes_at(w.quants, g, side); }, w, x, dot);
  }
  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& w, uint8_t* u) {
    return unpack_by([&](int g, int side) { return sixes_at(w.quants, g, side); }, u);
  }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock& w,
                                         const ActivationBlock& x, F32x16* dot) {
    u = in_memory(u);
    dots_of<kRows>([&](int g, int side) { return bytes_at(u, g, side); }, w, x, dot);
  }
};

// Signed quants.
#ifdef GEMTP_AVX_VNNI
struct Signed {
  __m256i u;  // w + 128
  explicit GEMTP_INLINE Signed(__m256i w) : u(_mm256_xor_si256(w, _mm256_set1_epi8(-128))) {}
  static GEMTP_INLINE __m256i begin(int32_t bias) {  // -128 * sum
    return _mm256_madd_epi16(_mm256_set1_epi32(bias), _mm256_set1_epi16(16));
  }
  GEMTP_INLINE __m256i add_dot(__m256i acc, __m256i x) const {
    return _mm256_dpbusd_avx_epi32(acc, u, x);
  }
};
#else
struct Signed {
  __m256i w, size;  // |w| <= 128 as unsigned: two products of at most 128 * 127 fit int16
  explicit GEMTP_INLINE Signed(__m256i v) : w(v), size(_mm256_abs_epi8(v)) {}
  static GEMTP_INLINE __m256i begin(int32_t) { return zero_bytes(); }
  GEMTP_INLINE __m256i add_dot(__m256i acc, __m256i x) const {
    const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};
#endif

template <int kRows>
struct SignedDots {
  __m256i lo[kRows], hi[kRows];

  explicit GEMTP_INLINE SignedDots(const int32_t* bias) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) lo[i] = hi[i] = Signed::begin(bias[i]);
  }
  GEMTP_INLINE void add(__m256i lower, __m256i upper, const int8_t* q) {  // as Dots::add
    const Signed w_lo(lower), w_hi(upper);
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const __m256i four = broadcast4(q + i * kBlock);
      lo[i] = w_lo.add_dot(lo[i], four);
      hi[i] = w_hi.add_dot(hi[i], four);
    }
  }
  GEMTP_INLINE void end(F32x16* dot) const {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) dot[i] = {_mm256_cvtepi32_ps(lo[i]), _mm256_cvtepi32_ps(hi[i])};
  }
};

template <int kRows>
GEMTP_INLINE void dots_of_signed(const uint8_t* w, const ActivationBlock& x, F32x16* dot) {
  SignedDots<kRows> sum(x.bias);
  GEMTP_NO_UNROLL
  for (int g = 0; g < 8; ++g)
    sum.add(load_bytes(w + g * 64), load_bytes(w + g * 64 + 32), x.q + g * 4);
  sum.end(dot);
}

struct Bytes {
  static constexpr int kBlockBytes = 512, kUnpackedBytes = 64;  // used in place
  static constexpr int kDirectRows = 4, kGroup = 4;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    dots_of_signed<kRows>(w.quants, x, dot);
  }
  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& w, uint8_t*) { return w.quants; }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t*, const PackedBlock& w,
                                         const ActivationBlock& x, F32x16* dot) {
    dots<kRows>(w, x, dot);
  }
};

struct Table {
  static constexpr int kBlockBytes = 256, kUnpackedBytes = 512;
  static constexpr int kDirectRows = 2, kGroup = 4;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    SignedDots<kRows> sum(x.bias);
    GEMTP_UNROLL
    for (int g = 0; g < 8; ++g)
      sum.add(table_at(w.quants, w.table, g, 0), table_at(w.quants, w.table, g, 1), x.q + g * 4);
    sum.end(dot);
  }
  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& w, uint8_t* u) {
    return unpack_by([&](int g, int side) { return table_at(w.quants, w.table, g, side); }, u);
  }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock&,
                                         const ActivationBlock& x, F32x16* dot) {
    dots_of_signed<kRows>(in_memory(u), x, dot);
  }
};

struct GroupTable : Table {
  template <int kRows, class At>
  static GEMTP_INLINE void dots_of(At at, const PackedBlock& w, const ActivationBlock& x,
                                   F32x16* dot) {
    GEMTP_UNROLL
    for (int side = 0; side < 2; ++side) {
      __m256i acc[kRows];
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) acc[i] = zero_bytes();
      GEMTP_UNROLL
      for (int g = 0; g < 8; ++g) {
        const __m256i v = at(g, side), size = _mm256_abs_epi8(v);
        const __m256i scale = group_scales(w.groups, g / 4, side);
        GEMTP_UNROLL
        for (int i = 0; i < kRows; ++i) {
          const __m256i four = broadcast4(x.q + i * kBlock + g * 4);
          const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(four, v));
          acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(pairs, scale));
        }
      }
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) (side ? dot[i].hi : dot[i].lo) = _mm256_cvtepi32_ps(acc[i]);
    }
  }

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    dots_of<kRows>([&](int g, int side) { return table_at(w.quants, w.table, g, side); }, w, x,
                   dot);
  }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock& w,
                                         const ActivationBlock& x, F32x16* dot) {
    u = in_memory(u);
    dots_of<kRows>([&](int g, int side) { return bytes_at(u, g, side); }, w, x, dot);
  }
};

}  // namespace

#include "backend/cpu/vector_table.h"
