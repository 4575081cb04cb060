// Dot products with SDOT, which adds four products of int8 to an int32 lane. It multiplies a group
// of four k of four output rows by the same group of one activation row, which is selected by its
// lane.
#pragma once

#include "backend/cpu/neon_quants.h"

namespace {

// Half a block (16 k) of kRows activation rows.
template <int kRows>
struct HalfBlock {
  int8x16_t x[kRows];

  GEMTP_INLINE explicit HalfBlock(const int8_t* q) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) x[i] = vld1q_s8(q + i * kBlock);
  }

  // Adds the dot products of w, four groups of four output rows, to sum[i].
  GEMTP_INLINE void add_dots(const int8x16_t* w, int32x4_t* sum) const {
    add_group<0>(w[0], sum);
    add_group<1>(w[1], sum);
    add_group<2>(w[2], sum);
    add_group<3>(w[3], sum);
  }

 private:
  template <int kGroup>
  GEMTP_INLINE void add_group(int8x16_t w, int32x4_t* sum) const {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) sum[i] = vdotq_laneq_s32(sum[i], w, x[i], kGroup);
  }
};

struct Sdot {
  static constexpr int kRows = 4;

  template <int kMost, int kRows>
  static GEMTP_INLINE void whole(const int8x16_t* w, const int8_t* x, int32x4_t* sum) {
    HalfBlock<kRows>(x).add_dots(w, sum);
    HalfBlock<kRows>(x + 16).add_dots(w + 4, sum);
  }

  template <int kMost, int kRows>
  static GEMTP_INLINE void halves(const int8x16_t* w, const int8_t* x, int32x4_t* first,
                                  int32x4_t* second) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) first[i] = second[i] = vdupq_n_s32(0);
    HalfBlock<kRows>(x).add_dots(w, first);
    HalfBlock<kRows>(x + 16).add_dots(w + 4, second);
  }
};

}  // namespace
