// Unpacks quants to int8. rows(w, r, q) unpacks output rows 4r .. 4r + 3; q[g] gets group g of four
// k, [4 rows][4 k]. kMost is the largest absolute value, kOffset the offset that is still to be
// subtracted.
#pragma once

#include "backend/cpu/neon_lanes.h"
#include "backend/cpu/vector_kernels.h"
#include "backend/cpu/vector_matmul.h"

namespace {

struct SignedQuants {
  static constexpr int kBlockBytes = 512, kMost = 128, kOffset = 0;
  static GEMTP_INLINE void rows(const PackedBlock& w, int r, int8x16_t* q) {
    GEMTP_UNROLL
    for (int g = 0; g < 8; ++g) q[g] = vreinterpretq_s8_u8(vld1q_u8(w.quants + g * 64 + r * 16));
  }
};

template <int kWithOffset>
struct NibbleQuants {
  static constexpr int kBlockBytes = 256, kMost = 15, kOffset = kWithOffset;
  static GEMTP_INLINE void rows(const PackedBlock& w, int r, int8x16_t* q) {
    GEMTP_UNROLL
    for (int g = 0; g < 4; ++g) {
      const uint8x16_t both = vld1q_u8(w.quants + g * 64 + r * 16);
      q[g] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
      q[g + 4] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
    }
  }
};

struct TableQuants {
  static constexpr int kBlockBytes = 256, kMost = 128, kOffset = 0;
  static GEMTP_INLINE void rows(const PackedBlock& w, int r, int8x16_t* q) {
    const int8x16_t table = vld1q_s8(w.table);
    NibbleQuants<0>::rows(w, r, q);
    GEMTP_UNROLL
    for (int g = 0; g < 8; ++g) q[g] = vqtbl1q_s8(table, vreinterpretq_u8_s8(q[g]));
  }
};

// Combines the lower nibbles of `low` with the upper nibbles of `high`.
inline int8x16_t join_nibbles(uint8x16_t high, int8x16_t low) {
  return vreinterpretq_s8_u8(vbslq_u8(vdupq_n_u8(15), vreinterpretq_u8_s8(low), high));
}

// Bit 4 from a plane of one bit for each group, whose others are zero; or, with an offset of 16 and
// the plane inverted, the upper nibble of a number with a sign: 0xf0 where the inverted bit is set.
template <int kWithOffset>
struct FiveQuants {
  static_assert(kWithOffset == 0 || kWithOffset == 16);
  static constexpr int kBlockBytes = 320, kMost = 31, kOffset = 0;

  template <int kGroup>
  static GEMTP_INLINE int8x16_t with_bit(int8x16_t nibbles, uint8x16_t plane) {
    const uint8x16_t top = vshlq_n_u8(plane, 7 - kGroup);
    if constexpr (kWithOffset == 0) return join_nibbles(vshrq_n_u8(top, 3), nibbles);
    return join_nibbles(vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(top), 3)), nibbles);
  }
  static GEMTP_INLINE void rows(const PackedBlock& w, int r, int8x16_t* q) {
    uint8x16_t plane = vld1q_u8(w.quants + 256 + r * 16);
    if (kWithOffset) plane = vmvnq_u8(plane);
    NibbleQuants<0>::rows(w, r, q);
    q[0] = with_bit<0>(q[0], plane);
    q[1] = with_bit<1>(q[1], plane);
    q[2] = with_bit<2>(q[2], plane);
    q[3] = with_bit<3>(q[3], plane);
    q[4] = with_bit<4>(q[4], plane);
    q[5] = with_bit<5>(q[5], plane);
    q[6] = with_bit<6>(q[6], plane);
    q[7] = with_bit<7>(q[7], plane);
  }
};

// Subtracts 32: the upper two bits, with the top one inverted, are a signed number of sixteens.
struct SixQuants {
  static constexpr int kBlockBytes = 384, kMost = 32, kOffset = 0;

  template <int kGroup>
  static GEMTP_INLINE int8x16_t with_bits(int8x16_t nibbles, uint8x16_t plane) {
    const int8x16_t top = vreinterpretq_s8_u8(vshlq_n_u8(plane, 6 - 2 * kGroup));
    return join_nibbles(vreinterpretq_u8_s8(vshrq_n_s8(top, 2)), nibbles);
  }
  static GEMTP_INLINE void rows(const PackedBlock& w, int r, int8x16_t* q) {
    NibbleQuants<0>::rows(w, r, q);
    GEMTP_UNROLL
    for (int half = 0; half < 2; ++half, q += 4) {
      const uint8x16_t stored = vld1q_u8(w.quants + 256 + half * 64 + r * 16);
      const uint8x16_t plane = veorq_u8(stored, vdupq_n_u8(0xaa));
      q[0] = with_bits<0>(q[0], plane);
      q[1] = with_bits<1>(q[1], plane);
      q[2] = with_bits<2>(q[2], plane);
      q[3] = with_bits<3>(q[3], plane);
    }
  }
};

// Initial value of sums whose quants still contain their offset: -kOffset * (sum of the block's
// activations) in every lane; bias holds -8 times that sum in two parts.
template <int kOffset>
inline int32x4_t start_of(int32_t bias) {
  static_assert(kOffset == 0 || kOffset == 8);
  if constexpr (kOffset == 0) return vdupq_n_s32(0);
  return vpaddlq_s16(vreinterpretq_s16_s32(vdupq_n_s32(bias)));
}

// Returns dot0 * scale0 + dot1 * scale1 for four output rows. All are integers below 2^24, which
// floats represent exactly.
inline float32x4_t scaled(int32x4_t dot0, float32x4_t scale0, int32x4_t dot1, float32x4_t scale1) {
  return vfmaq_f32(vmulq_f32(vcvtq_f32_s32(dot0), scale0), vcvtq_f32_s32(dot1), scale1);
}

// Dot products of quants of the kind `Quants`, unpacked by Source, four output rows at a time.
// Arithmetic has two functions: whole<kMost, n>(q, x, sum) adds the dot products of q's eight
// groups with n activation rows from x on to sum; halves<kMost, n>(q, x, first, second) sets those
// of the first and of the last four groups.
template <class Arithmetic, class Source, class Quants, bool kGrouped, int kRows>
GEMTP_INLINE void dots_by_rows(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
  F32x16 scale[2];
  if constexpr (kGrouped) {
    scale[0] = load_i8(w.groups);
    scale[1] = load_i8(w.groups + 16);
  }
  GEMTP_UNROLL
  for (int r = 0; r < 4; ++r) {  // output rows 4r .. 4r + 3
    int8x16_t q[8];
    Source::rows(w, r, q);
    if constexpr (kGrouped) {
      int32x4_t first[kRows], second[kRows];
      Arithmetic::template halves<Quants::kMost, kRows>(q, x.q, first, second);
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i)
        dot[i].v[r] = scaled(first[i], scale[0].v[r], second[i], scale[1].v[r]);
    } else {
      int32x4_t sum[kRows];
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) sum[i] = start_of<Quants::kOffset>(x.bias[i]);
      Arithmetic::template whole<Quants::kMost, kRows>(q, x.q, sum);
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) dot[i].v[r] = vcvtq_f32_s32(sum[i]);
    }
  }
}

// A kind of quants as vector_kernels.h requires it. Unpacked blocks: [8 groups][16 rows][4] int8.
template <class Arithmetic, class Quants, bool kGrouped>
struct ByRows {
  static constexpr int kBlockBytes = Quants::kBlockBytes;
  static constexpr int kUnpackedBytes = 512;
  static constexpr int kDirectRows = Arithmetic::kRows, kGroup = Arithmetic::kRows;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& w, const ActivationBlock& x, F32x16* dot) {
    dots_by_rows<Arithmetic, Quants, Quants, kGrouped, kRows>(w, x, dot);
  }

  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& w, uint8_t* u) {
    if constexpr (Quants::kBlockBytes == 512) return w.quants;  // in place
    GEMTP_UNROLL
    for (int r = 0; r < 4; ++r) {
      int8x16_t q[8];
      Quants::rows(w, r, q);
      GEMTP_UNROLL
      for (int g = 0; g < 8; ++g) vst1q_u8(u + g * 64 + r * 16, vreinterpretq_u8_s8(q[g]));
    }
    return u;
  }

  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock& w,
                                         const ActivationBlock& x, F32x16* dot) {
    const PackedBlock unpacked = {u, w.groups, w.table};
    dots_by_rows<Arithmetic, SignedQuants, Quants, kGrouped, kRows>(unpacked, x, dot);
  }
};

}  // namespace
