// The kernels for every 64-bit ARM processor: quantized dots in 16-bit products.
#include "backend/cpu/neon_lanes.h"

#include "backend/cpu/vector_attention.h"
#include "backend/cpu/vector_kernels.h"
#include "backend/cpu/vector_matmul.h"

namespace {

// The quants of a group of four k, four times over.
inline int8x16_t broadcast4(const int8_t* q) {
  int32_t four;
  memcpy(&four, q, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

// Products of four output rows with one activation row, [row][4] in int16.
struct Products {
  int16x8_t first, second;  // of rows 0, 1 and of rows 2, 3

  static Products of(int8x16_t w, int8x16_t x) {
    return {vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x)};
  }
  GEMTP_INLINE void add(int8x16_t w, int8x16_t x) {
    first = vmlal_s8(first, vget_low_s8(w), vget_low_s8(x));
    second = vmlal_high_s8(second, w, x);
  }
};

template <int kOffset>
struct Nibbles {
  static_assert(kOffset == 8);
  static constexpr int kBlockBytes = 256, kUnpackedBytes = 512;
  static constexpr int kDirectRows = 3, kGroup = 3;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& block, const ActivationBlock& x, F32x16* dot) {
    const uint8_t* w = block.quants;
    const int8_t* q = x.q;
    const int32_t* bias = x.bias;
    const uint8x16_t low4 = vdupq_n_u8(15);
    GEMTP_UNROLL
    for (int r = 0; r < 4; ++r) {  // output rows 4r .. 4r + 3
      Products sum[kRows];
      GEMTP_UNROLL
      for (int g = 0; g < 4; ++g) {
        const uint8x16_t both = vld1q_u8(w + g * 64 + r * 16);
        const int8x16_t first = vreinterpretq_s8_u8(vandq_u8(both, low4));
        const int8x16_t second = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
        GEMTP_UNROLL
        for (int i = 0; i < kRows; ++i) {
          const int8_t* x = q + i * kBlock + g * 4;
          if (g == 0)
            sum[i] = Products::of(first, broadcast4(x));
          else
            sum[i].add(first, broadcast4(x));
          sum[i].add(second, broadcast4(x + 16));
        }
      }
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) dot[i].v[r] = end(sum[i], bias[i]);
    }
  }

  // One nibble a byte, [8 groups of four k][16 output rows][4].
  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& block, uint8_t* u) {
    const uint8_t* w = block.quants;
    GEMTP_UNROLL
    for (int i = 0; i < 256; i += 16) {
      const uint8x16_t both = vld1q_u8(w + i);
      vst1q_u8(u + i, vandq_u8(both, vdupq_n_u8(15)));
      vst1q_u8(u + 256 + i, vshrq_n_u8(both, 4));
    }
    return u;
  }

  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock&,
                                         const ActivationBlock& x, F32x16* dot) {
    const int8_t* q = x.q;
    const int32_t* bias = x.bias;
    GEMTP_UNROLL
    for (int r = 0; r < 4; ++r) {
      Products sum[kRows];
      GEMTP_UNROLL
      for (int g = 0; g < 8; ++g) {
        const int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(u + g * 64 + r * 16));
        GEMTP_UNROLL
        for (int i = 0; i < kRows; ++i) {
          const int8x16_t x = broadcast4(q + i * kBlock + g * 4);
          if (g == 0)
            sum[i] = Products::of(w, x);
          else
            sum[i].add(w, x);
        }
      }
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) dot[i].v[r] = end(sum[i], bias[i]);
    }
  }

  // A lane of `sum` holds 8 products, so a pair of lanes at most 16 * 15 * 127: still an int16.
  static GEMTP_INLINE float32x4_t end(Products sum, int32_t bias) {
    const int32x4_t start = vpaddlq_s16(vreinterpretq_s16_s32(vdupq_n_s32(bias)));
    return vcvtq_f32_s32(vpadalq_s16(start, vpaddq_s16(sum.first, sum.second)));
  }
};

struct Bytes {
  static constexpr int kBlockBytes = 512, kUnpackedBytes = 64;  // used as it is
  static constexpr int kDirectRows = 3, kGroup = 3;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& block, const ActivationBlock& x, F32x16* dot) {
    const uint8_t* w = block.quants;
    const int8_t* q = x.q;
    GEMTP_UNROLL
    for (int r = 0; r < 4; ++r) {
      int32x4_t first[kRows], second[kRows];
      GEMTP_UNROLL
      for (int g = 0; g < 8; g += 2) {  // an int16 holds two products of -128 * 127, not more
        const int8x16_t w0 = vreinterpretq_s8_u8(vld1q_u8(w + g * 64 + r * 16));
        const int8x16_t w1 = vreinterpretq_s8_u8(vld1q_u8(w + g * 64 + r * 16 + 64));
        GEMTP_UNROLL
        for (int i = 0; i < kRows; ++i) {
          const int8_t* x = q + i * kBlock + g * 4;
          Products sum = Products::of(w0, broadcast4(x));
          sum.add(w1, broadcast4(x + 4));
          first[i] = g == 0 ? vpaddlq_s16(sum.first) : vpadalq_s16(first[i], sum.first);
          second[i] = g == 0 ? vpaddlq_s16(sum.second) : vpadalq_s16(second[i], sum.second);
        }
      }
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) dot[i].v[r] = vcvtq_f32_s32(vpaddq_s32(first[i], second[i]));
    }
  }

  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& w, uint8_t*) { return w.quants; }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* w, const PackedBlock&,
                                         const ActivationBlock& x, F32x16* dot) {
    const int8_t* q = x.q;
    const int32_t* bias = x.bias;
    dots<kRows>(w, q, bias, dot);
  }
};

}  // namespace

#define GEMTP_TABLE gemtp_kernels_neon
#define GEMTP_TABLE_NAME "neon"
#define GEMTP_FIRST_QUANTS
#include "backend/cpu/vector_table.h"
