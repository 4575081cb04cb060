// Sixteen float lanes in four NEON registers: what vector_kernels.h requires of an instruction set,
// in the instructions of every 64-bit ARM processor.
#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar_math.h"

namespace {

constexpr int kChains = 4;  // 16 of the 32 registers: two FMA units with a latency of 4
constexpr int kTileQueries = 6, kTileVectors = 1;  // 24 of the 32 registers are sums

// Half a microsecond at 4 GB/s, a core's share on a Raspberry Pi 5: a few times what its memory
// takes to answer.
constexpr int64_t kBytesAhead = 2048;
constexpr int kStreams = 4, kStreamedRows = 2;
inline void prefetch(const void* p) {
#if defined(_MSC_VER) && !defined(__clang__)
  __prefetch(p);
#else
  __builtin_prefetch(p);
#endif
}

struct F32x16 {
  float32x4_t v[4];
};

// {fn(0), fn(1), fn(2), fn(3)}; fn gives the four lanes from 4 * its argument on.
template <class Fn>
inline F32x16 quarters(Fn fn) {
  return {{fn(0), fn(1), fn(2), fn(3)}};
}

inline F32x16 set1(float s) {
  const float32x4_t four = vdupq_n_f32(s);
  return {{four, four, four, four}};
}
inline F32x16 zero() { return set1(0.0f); }
inline F32x16 load(const float* p) {
  return quarters([&](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, F32x16 v) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, v.v[i]);
}
inline F32x16 load_n(const float* p, int64_t n) {
  if (n == 16) return load(p);
  float padded[16] = {};
  memcpy(padded, p, static_cast<size_t>(n) * 4);
  return load(padded);
}
inline void store_n(float* p, F32x16 v, int64_t n) {
  if (n == 16) return store(p, v);
  float all[16];
  store(all, v);
  memcpy(p, all, static_cast<size_t>(n) * 4);
}

inline F32x16 load_f16(const uint16_t* p) {
  const float16x8_t a = vreinterpretq_f16_u16(vld1q_u16(p));
  const float16x8_t b = vreinterpretq_f16_u16(vld1q_u16(p + 8));
  return {{vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)),
           vcvt_high_f32_f16(b)}};
}
inline F32x16 load_bf16(const uint16_t* p) {
  return quarters(
      [&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
inline F32x16 load_u8(const uint8_t* p) {
  return quarters([&](int i) {
    uint32_t four;
    memcpy(&four, p + 4 * i, 4);
    const uint16x8_t wide = vmovl_u8(vcreate_u8(four));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
  });
}
inline F32x16 load_i8(const uint8_t* p) {
  return quarters([&](int i) {
    uint32_t four;
    memcpy(&four, p + 4 * i, 4);
    const int16x8_t wide = vmovl_s8(vcreate_s8(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
  });
}
inline void store_f16(uint16_t* p, F32x16 v) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v.v[i])));
}
inline void store_f16_n(uint16_t* p, F32x16 v, int64_t n) {
  uint16_t all[16];
  store_f16(all, v);
  memcpy(p, all, static_cast<size_t>(n) * 2);
}

inline F32x16 operator+(F32x16 a, F32x16 b) {
  return quarters([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return quarters([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return quarters([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return quarters([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return quarters([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) {
  return quarters([&](int i) { return vfmsq_f32(c.v[i], a.v[i], b.v[i]); });
}
// FMAX and FMIN would return NaN if one operand is NaN.
inline float32x4_t max(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline float32x4_t min(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline F32x16 max(F32x16 a, F32x16 b) {
  return quarters([&](int i) { return max(a.v[i], b.v[i]); });
}
inline F32x16 min(F32x16 a, F32x16 b) {
  return quarters([&](int i) { return min(a.v[i], b.v[i]); });
}
inline F32x16 round_even(F32x16 v) {
  return quarters([&](int i) { return vrndnq_f32(v.v[i]); });
}
inline F32x16 abs_of(F32x16 v) {
  return quarters([&](int i) { return vabsq_f32(v.v[i]); });
}
inline F32x16 with_sign(F32x16 v, F32x16 s) {
  const uint32x4_t sign = vdupq_n_u32(0x80000000u);
  return quarters([&](int i) { return vbslq_f32(sign, s.v[i], v.v[i]); });
}
inline F32x16 power_of_two(F32x16 n) {
  const int32x4_t bias = vdupq_n_s32(127);
  return quarters([&](int i) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.v[i]), bias), 23));
  });
}
inline F32x16 select_lt(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return quarters([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]); });
}
inline F32x16 select_lanes(int64_t begin, int64_t end, F32x16 x, F32x16 y) {
  static const int32_t kLane[4] = {0, 1, 2, 3};
  const int32x4_t first = vdupq_n_s32(static_cast<int32_t>(begin));
  const int32x4_t behind = vdupq_n_s32(static_cast<int32_t>(end));
  return quarters([&](int i) {
    const int32x4_t lane = vaddq_s32(vld1q_s32(kLane), vdupq_n_s32(4 * i));
    const uint32x4_t inside = vandq_u32(vcgeq_s32(lane, first), vcltq_s32(lane, behind));
    return vbslq_f32(inside, x.v[i], y.v[i]);
  });
}

inline float fold(F32x16 v) {
  const float32x4_t s4 = vaddq_f32(vaddq_f32(v.v[0], v.v[2]), vaddq_f32(v.v[1], v.v[3]));
  const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
  return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
inline float max_of(F32x16 v) {
  const float32x4_t s4 = max(max(v.v[0], v.v[2]), max(v.v[1], v.v[3]));
  const float a = vgetq_lane_f32(s4, 0), b = vgetq_lane_f32(s4, 1);
  const float c = vgetq_lane_f32(s4, 2), d = vgetq_lane_f32(s4, 3);
  const float ac = a > c ? a : c, bd = b > d ? b : d;
  return ac > bd ? ac : bd;
}

// Eight floats, rounded to the nearest even integer, in -127..127.
inline int8x8_t to_q8(float32x4_t a, float32x4_t b) {
  return vmovn_s16(vcombine_s16(vmovn_s32(vcvtnq_s32_f32(a)), vmovn_s32(vcvtnq_s32_f32(b))));
}
// Sums of the even and of the odd pairs of 16 quants, as int16.
inline int32_t pairs_of(int8x16_t q) {
  const int16x8_t pairs = vpaddlq_s8(q);
  const int16x4_t s = vadd_s16(vget_low_s16(pairs), vget_high_s16(pairs));
  const int32x2_t both = vreinterpret_s32_s16(s);
  return vget_lane_s32(vreinterpret_s32_s16(vadd_s16(s, vreinterpret_s16_s32(vrev64_s32(both)))),
                       0);
}
inline void store_q8(gemtp_q8_rows to, F32x16 v0, F32x16 v1) {
  const int8x16_t a = vcombine_s8(to_q8(v0.v[0], v0.v[1]), to_q8(v0.v[2], v0.v[3]));
  const int8x16_t b = vcombine_s8(to_q8(v1.v[0], v1.v[1]), to_q8(v1.v[2], v1.v[3]));
  vst1q_s8(to.q, a);
  vst1q_s8(to.q + 16, b);
  gemtp_q8_sums(to, pairs_of(a), pairs_of(b));
}

}  // namespace
