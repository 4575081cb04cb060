// Activations as blocks of 32 quants: quantize_q8 of backend/cpu/kernels.h.
#pragma once

#include "backend/gpu/kernels/arguments.h"
#include "backend/gpu/kernels/math.h"

namespace gemtp {
namespace gpu {

/// Of kernels whose blocks share no memory.
struct NoMemory {
  SharedArray<float, 1> none;
};

GPU_INT kHeadBytes = 16, kBlockBytes = kHeadBytes + 32 * int(sizeof(Quant));

GPU_INLINE Global<Quant> quants_of(Global<uint8_t> block) {
  return as_global<Quant>(block + kHeadBytes);
}

/// The largest of all lanes' values, none of which is NaN, in every lane.
GPU_INLINE float warp_max(float x, int lane) {
  for (int i = 16; i > 0; i /= 2) {
    const float other = shuffle_xor(x, lane, i);
    x = other > x ? other : x;
  }
  return x;
}

/// A warp quantizes a block, an element x to a lane; it is number `block` of those of `to`.
GPU_INLINE void quantize_block(float x, int lane, QuantizedRows to, int64_t block) {
  const float size = float_of(bits_of(x) & 0x7fffffffu);
  const float amax = warp_max(size > 0.0f ? size : 0.0f, lane);
  const bool zero = amax < kTiny;
  const float d = zero ? 0.0f : amax / 127.0f;
  const float id = zero ? 0.0f : 1.0f / d;
  const float scaled = x * id;  // NaN for a NaN, and for an infinity (whose id is 0)
  const int q = int(nearest(scaled > -127.0f ? scaled : -127.0f));

  const int group = lane / 4, place = (group < 4 ? 2 * group : 2 * group - 7) * 4 + lane % 4;
  const Global<uint8_t> own = to + block * kBlockBytes;
  quants_of(own)[place] = as_quant(q);
  int sum = q;  // of its half
  for (int i = 8; i > 0; i /= 2) sum += shuffle_xor(sum, lane, i);
  const int other = shuffle_xor(sum, lane, 16);
  if (lane == 0) {
    const int halves = int(uint32_t(other) << 16 | (uint32_t(sum) & 0xffffu));
    as_global<BlockHead>(own)[0] = BlockHead{d, sum + other, d * float(sum + other), halves};
  }
}

}  // namespace gpu
}  // namespace gemtp
