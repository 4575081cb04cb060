// Dots by SDOT, which adds four products of int8 to an int32 lane: of a group of four k of four
// output rows with that group of one activation row, named by its lane.
#pragma once

#include "backend/cpu/neon_lanes.h"
#include "backend/cpu/vector_kernels.h"

namespace {

inline int8x16_t load_bytes(const uint8_t* p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }

// What Q4_0's sums begin with: -8 * (sum of the block's quants), in every lane.
inline int32x4_t nibble_start(int32_t bias) {
  return vpaddlq_s16(vreinterpretq_s16_s32(vdupq_n_s32(bias)));
}

// One block of kRows activation rows.
template <int kRows>
struct Quants {
  int8x16_t first[kRows], second[kRows];  // k 0..15, 16..31

  GEMTP_INLINE explicit Quants(const int8_t* q) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      first[i] = vld1q_s8(q + i * kBlock);
      second[i] = vld1q_s8(q + i * kBlock + 16);
    }
  }
};

// sum[i] += dots of w, four output rows, with group kGroup of x[i].
template <int kGroup, int kRows>
GEMTP_INLINE void add_group(int32x4_t* sum, int8x16_t w, const int8x16_t* x) {
  GEMTP_UNROLL
  for (int i = 0; i < kRows; ++i) sum[i] = vdotq_laneq_s32(sum[i], w, x[i], kGroup);
}

// dot[i] = start[i] + the dots of bytes [8 groups][16 output rows][4].
template <int kRows>
GEMTP_INLINE void dots_of_bytes(const uint8_t* w, const int8_t* q, const int32x4_t* start,
                                F32x16* dot) {
  const Quants<kRows> x(q);
  GEMTP_UNROLL
  for (int r = 0; r < 4; ++r, w += 16) {  // output rows 4r .. 4r + 3
    int32x4_t sum[kRows];
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) sum[i] = start[i];
    add_group<0, kRows>(sum, load_bytes(w), x.first);
    add_group<1, kRows>(sum, load_bytes(w + 64), x.first);
    add_group<2, kRows>(sum, load_bytes(w + 128), x.first);
    add_group<3, kRows>(sum, load_bytes(w + 192), x.first);
    add_group<0, kRows>(sum, load_bytes(w + 256), x.second);
    add_group<1, kRows>(sum, load_bytes(w + 320), x.second);
    add_group<2, kRows>(sum, load_bytes(w + 384), x.second);
    add_group<3, kRows>(sum, load_bytes(w + 448), x.second);
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) dot[i].v[r] = vcvtq_f32_s32(sum[i]);
  }
}

// Group kGroup of both halves of a block of nibbles.
template <int kGroup, int kRows>
GEMTP_INLINE void add_nibbles(int32x4_t* sum, const uint8_t* w, const Quants<kRows>& x) {
  const uint8x16_t both = vld1q_u8(w + kGroup * 64);
  add_group<kGroup, kRows>(sum, vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))), x.first);
  add_group<kGroup, kRows>(sum, vreinterpretq_s8_u8(vshrq_n_u8(both, 4)), x.second);
}

template <int kRows>
GEMTP_INLINE void dots_of_nibbles(const uint8_t* w, const int8_t* q, const int32_t* bias,
                                  F32x16* dot) {
  const Quants<kRows> x(q);
  GEMTP_UNROLL
  for (int r = 0; r < 4; ++r, w += 16) {
    int32x4_t sum[kRows];
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) sum[i] = nibble_start(bias[i]);
    add_nibbles<0>(sum, w, x);
    add_nibbles<1>(sum, w, x);
    add_nibbles<2>(sum, w, x);
    add_nibbles<3>(sum, w, x);
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) dot[i].v[r] = vcvtq_f32_s32(sum[i]);
  }
}

template <int kRows>
GEMTP_INLINE void dots_of_int8(const uint8_t* w, const int8_t* q, F32x16* dot) {
  int32x4_t start[kRows];
  GEMTP_UNROLL
  for (int i = 0; i < kRows; ++i) start[i] = vdupq_n_s32(0);
  dots_of_bytes<kRows>(w, q, start, dot);
}

}  // namespace
