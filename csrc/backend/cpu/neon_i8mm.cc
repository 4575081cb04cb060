// NEON with the 8-bit matrix products of ARMv8.6 (SMMLA): eight k of two activation rows by those
// of two output rows, one sum of products in each of four int32 lanes. A single row goes by SDOT.
#include "backend/cpu/neon_dots.h"
#include "backend/cpu/vector_attention.h"
#include "backend/cpu/vector_matmul.h"

namespace {

inline int8x16_t lower_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
inline int8x16_t upper_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

// Two groups of four k of four output rows, [group][row][4], as [row][8 k].
struct RowsOf8 {
  uint8x16_t first, second;  // rows 0, 1 and rows 2, 3

  GEMTP_INLINE RowsOf8(const uint8_t* group, const uint8_t* next) {
    const uint32x4_t a = vreinterpretq_u32_u8(vld1q_u8(group));
    const uint32x4_t b = vreinterpretq_u32_u8(vld1q_u8(next));
    first = vreinterpretq_u8_u32(vzip1q_u32(a, b));
    second = vreinterpretq_u8_u32(vzip2q_u32(a, b));
  }
};

// Unpacked blocks: [4 quarters of the output rows][4 eights of k][4 rows][8 k].
constexpr int kQuarter = 128, kEight = 32;

inline void unpack_nibbles(const uint8_t* w, uint8_t* u) {
  const uint8x16_t low4 = vdupq_n_u8(15);
  GEMTP_UNROLL
  for (int r = 0; r < 4; ++r) {
    GEMTP_UNROLL
    for (int e = 0; e < 2; ++e) {
      const RowsOf8 both(w + r * 16 + e * 128, w + r * 16 + e * 128 + 64);
      uint8_t* to = u + r * kQuarter + e * kEight;
      vst1q_u8(to, vandq_u8(both.first, low4));
      vst1q_u8(to + 16, vandq_u8(both.second, low4));
      vst1q_u8(to + 2 * kEight, vshrq_n_u8(both.first, 4));
      vst1q_u8(to + 2 * kEight + 16, vshrq_n_u8(both.second, 4));
    }
  }
}

inline void unpack_int8(const uint8_t* w, uint8_t* u) {
  GEMTP_UNROLL
  for (int r = 0; r < 4; ++r) {
    GEMTP_UNROLL
    for (int e = 0; e < 4; ++e) {
      const RowsOf8 rows(w + r * 16 + e * 128, w + r * 16 + e * 128 + 64);
      vst1q_u8(u + r * kQuarter + e * kEight, rows.first);
      vst1q_u8(u + r * kQuarter + e * kEight + 16, rows.second);
    }
  }
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

// The sums of two activation rows with four output rows: [activation row][output row] of output
// rows 0, 1 and of 2, 3.
struct Products {
  int32x4_t first, second;

  GEMTP_INLINE void add(int8x16_t w_first, int8x16_t w_second, int8x16_t x) {
    first = vmmlaq_s32(first, x, w_first);
    second = vmmlaq_s32(second, x, w_second);
  }
  float32x4_t row0() const {
    return vcvtq_f32_s32(vreinterpretq_s32_s64(
        vzip1q_s64(vreinterpretq_s64_s32(first), vreinterpretq_s64_s32(second))));
  }
  float32x4_t row1() const {
    return vcvtq_f32_s32(vreinterpretq_s32_s64(
        vzip2q_s64(vreinterpretq_s64_s32(first), vreinterpretq_s64_s32(second))));
  }
};

// dot[i] = start + the dots of an unpacked block. A single row goes with itself: that costs no more
// than SDOT would.
template <int kRows>
GEMTP_INLINE void dots_of_unpacked(const uint8_t* u, const int8_t* q, int32x4_t start,
                                   F32x16* dot) {
  static_assert(kRows <= 2);
  const QuantPair x(q, q + (kRows - 1) * kBlock);
  GEMTP_UNROLL
  for (int r = 0; r < 4; ++r) {
    Products sum = {start, start};
    GEMTP_UNROLL
    for (int e = 0; e < 4; ++e) {
      const uint8_t* w = u + r * kQuarter + e * kEight;
      sum.add(load_bytes(w), load_bytes(w + 16), x.eight[e]);
    }
    dot[0].v[r] = sum.row0();
    if constexpr (kRows == 2) dot[1].v[r] = sum.row1();
  }
}

template <int kOffset>
struct Nibbles {
  static_assert(kOffset == 8);
  static constexpr int kBlockBytes = 256, kUnpackedBytes = 512;
  static constexpr int kDirectRows = 4, kGroup = 2;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& block, const ActivationBlock& x, F32x16* dot) {
    const uint8_t* w = block.quants;
    const int8_t* q = x.q;
    const int32_t* bias = x.bias;
    dots_of_nibbles<kRows>(w, q, bias, dot);
  }

  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& block, uint8_t* u) {
    const uint8_t* w = block.quants;
    unpack_nibbles(w, u);
    return u;
  }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock&,
                                         const ActivationBlock& x, F32x16* dot) {
    const int8_t* q = x.q;
    const int32_t* bias = x.bias;
    const int32x4_t a = nibble_start(bias[0]), b = nibble_start(bias[kRows - 1]);
    dots_of_unpacked<kRows>(u, q, vcombine_s32(vget_low_s32(a), vget_low_s32(b)), dot);
  }
};

struct Bytes {
  static constexpr int kBlockBytes = 512, kUnpackedBytes = 512;
  static constexpr int kDirectRows = 4, kGroup = 2;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& block, const ActivationBlock& x, F32x16* dot) {
    const uint8_t* w = block.quants;
    const int8_t* q = x.q;
    dots_of_int8<kRows>(w, q, dot);
  }

  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& block, uint8_t* u) {
    const uint8_t* w = block.quants;
    unpack_int8(w, u);
    return u;
  }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock&,
                                         const ActivationBlock& x, F32x16* dot) {
    const int8_t* q = x.q;
    dots_of_unpacked<kRows>(u, q, vdupq_n_s32(0), dot);
  }
};

}  // namespace

#define GEMTP_TABLE gemtp_kernels_neon_i8mm
#define GEMTP_TABLE_NAME "neon_i8mm"
#define GEMTP_FIRST_QUANTS
#include "backend/cpu/vector_table.h"
