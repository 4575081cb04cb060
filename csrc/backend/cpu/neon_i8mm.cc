// NEON with the 8-bit matrix products of ARMv8.6. SMMLA multiplies eight k of two activation rows
// by those of two output rows and puts a sum of products into each of four int32 lanes. For few
// rows SDOT is used.
#include "backend/cpu/neon_dots.h"
#include "backend/cpu/vector_attention.h"

namespace {

inline int8x16_t lower_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
inline int8x16_t upper_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

// Unpacked blocks: [4 quarters of the output rows][4 eights of k][4 rows][8 k].
constexpr int kQuarter = 128, kEight = 32;

// Stores two groups of four k of four output rows, [row][4] each, as [row][8 k] at u.
inline void store_eight(int8x16_t group, int8x16_t next, uint8_t* u) {
  const uint32x4_t a = vreinterpretq_u32_s8(group), b = vreinterpretq_u32_s8(next);
  vst1q_u8(u, vreinterpretq_u8_u32(vzip1q_u32(a, b)));
  vst1q_u8(u + 16, vreinterpretq_u8_u32(vzip2q_u32(a, b)));
}

// Two activation rows of a block: [4 eights of k][2 rows][8 k].
struct QuantPair {
  int8x16_t eight[4];

  GEMTP_INLINE QuantPair(const int8_t* a, const int8_t* b) {
    const int8x16_t a0 = vld1q_s8(a), a1 = vld1q_s8(a + 16);
    const int8x16_t b0 = vld1q_s8(b), b1 = vld1q_s8(b + 16);
    eight[0] = lower_halves(a0, b0);
    eight[1] = upper_halves(a0, b0);
    eight[2] = lower_halves(a1, b1);
    eight[3] = upper_halves(a1, b1);
  }
};

// Sums of two activation rows with four output rows: [activation row][output row] for output rows 0
// and 1, and for 2 and 3.
struct Products {
  int32x4_t first, second;

  // Adds the products with eight k of the output rows, at u.
  GEMTP_INLINE void add(const uint8_t* u, int8x16_t x) {
    first = vmmlaq_s32(first, x, vreinterpretq_s8_u8(vld1q_u8(u)));
    second = vmmlaq_s32(second, x, vreinterpretq_s8_u8(vld1q_u8(u + 16)));
  }
  // Returns the sums of the four output rows with one activation row.
  GEMTP_INLINE int32x4_t row0() const {
    return vreinterpretq_s32_s64(
        vzip1q_s64(vreinterpretq_s64_s32(first), vreinterpretq_s64_s32(second)));
  }
  GEMTP_INLINE int32x4_t row1() const {
    return vreinterpretq_s32_s64(
        vzip2q_s64(vreinterpretq_s64_s32(first), vreinterpretq_s64_s32(second)));
  }
};

template <class Quants, bool kGrouped>
struct ByPairs : ByRows<Sdot, Quants, kGrouped> {
  static constexpr int kGroup = 2;

  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& w, uint8_t* u) {
    GEMTP_UNROLL
    for (int r = 0; r < 4; ++r) {
      int8x16_t q[8];
      Quants::rows(w, r, q);
      GEMTP_UNROLL
      for (int e = 0; e < 4; ++e)
        store_eight(q[2 * e], q[2 * e + 1], u + r * kQuarter + e * kEight);
    }
    return u;
  }

  // A single row is paired with itself, which costs no more than SDOT would.
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock& w,
                                         const ActivationBlock& x, F32x16* dot) {
    static_assert(kRows <= 2);
    const QuantPair pair(x.q, x.q + (kRows - 1) * kBlock);
    if constexpr (kGrouped)
      scaled_dots<kRows>(u, w.groups, pair, dot);
    else
      plain_dots<kRows>(u, x.bias, pair, dot);
  }

 private:
  template <int kRows>
  static GEMTP_INLINE void plain_dots(const uint8_t* u, const int32_t* bias, const QuantPair& x,
                                      F32x16* dot) {
    const int32x4_t a = start_of<Quants::kOffset>(bias[0]);
    const int32x4_t b = start_of<Quants::kOffset>(bias[kRows - 1]);
    const int32x4_t start = vcombine_s32(vget_low_s32(a), vget_low_s32(b));
    GEMTP_UNROLL
    for (int r = 0; r < 4; ++r) {
      Products sum = {start, start};
      GEMTP_UNROLL
      for (int e = 0; e < 4; ++e) sum.add(u + r * kQuarter + e * kEight, x.eight[e]);
      dot[0].v[r] = vcvtq_f32_s32(sum.row0());
      if constexpr (kRows == 2) dot[1].v[r] = vcvtq_f32_s32(sum.row1());
    }
  }

  template <int kRows>
  static GEMTP_INLINE void scaled_dots(const uint8_t* u, const uint8_t* groups, const QuantPair& x,
                                       F32x16* dot) {
    const F32x16 scale0 = load_i8(groups), scale1 = load_i8(groups + 16);
    const int32x4_t zero = vdupq_n_s32(0);
    GEMTP_UNROLL
    for (int r = 0; r < 4; ++r) {
      Products first = {zero, zero}, second = {zero, zero};
      GEMTP_UNROLL
      for (int e = 0; e < 2; ++e) {
        first.add(u + r * kQuarter + e * kEight, x.eight[e]);
        second.add(u + r * kQuarter + (e + 2) * kEight, x.eight[e + 2]);
      }
      dot[0].v[r] = scaled(first.row0(), scale0.v[r], second.row0(), scale1.v[r]);
      if constexpr (kRows == 2)
        dot[1].v[r] = scaled(first.row1(), scale0.v[r], second.row1(), scale1.v[r]);
    }
  }
};

template <int kOffset>
using Nibbles = ByPairs<NibbleQuants<kOffset>, false>;
template <int kOffset>
using Fives = ByPairs<FiveQuants<kOffset>, false>;
using Sixes = ByPairs<SixQuants, true>;
using Table = ByPairs<TableQuants, false>;
using GroupTable = ByPairs<TableQuants, true>;
using Bytes = ByPairs<SignedQuants, false>;

}  // namespace

#define GEMTP_TABLE gemtp_kernels_neon_i8mm
#define GEMTP_TABLE_NAME "neon_i8mm"
#include "backend/cpu/vector_table.h"
