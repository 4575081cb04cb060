// The words that kernels are written in, for CUDA. Compiled with -fmad=false -prec-div=true
// -prec-sqrt=true -ftz=false: one rounding for each operation as it is written.
#pragma once

#include <stdint.h>

#define GPU_INLINE __device__ __forceinline__
#define GPU_SHARED          // where a reference points: to the block's memory,
#define GPU_LOCAL           // the thread's own,
#define GPU_CONSTANT const  // the kernel's arguments
#define GPU_INT static constexpr int
#define GPU_FLOAT static constexpr float
#define GPU_UNROLL _Pragma("unroll")
#define GPU_NO_UNROLL _Pragma("unroll 1")
#define GPU_KERNEL(name, ...)                                                                 \
  extern "C" __global__ void __launch_bounds__(__VA_ARGS__::kThreads, 1)                      \
      gemtp_##name(const __grid_constant__ __VA_ARGS__::Arguments arguments, int first_row) { \
    __shared__ __VA_ARGS__::Memory memory;                                                    \
    const int index = int(threadIdx.x), row = first_row + int(blockIdx.y);                    \
    __VA_ARGS__::run(arguments, memory,                                                       \
                     Place{index, index / 32, index % 32, int(blockIdx.x), row});             \
  }

namespace gemtp {
namespace gpu {

template <class T>
using Global = T*;
template <class T, int kSize>
using SharedArray = T[kSize];
template <class T, class U>
GPU_INLINE Global<T> as_global(Global<U> p) {
  return reinterpret_cast<T*>(p);
}

struct Place {
  int index, warp, lane;  // of a thread in its block: warp 32 + lane == index
  int block, row;         // x and y in the grid
};

using Words2 = uint2;
using Words4 = uint4;

GPU_INLINE void barrier() { __syncthreads(); }
GPU_INLINE void warp_barrier() { __syncwarp(); }

GPU_INLINE uint32_t bits_of(float x) { return __float_as_uint(x); }
GPU_INLINE float float_of(uint32_t bits) { return __uint_as_float(bits); }
GPU_INLINE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
GPU_INLINE float nearest(float x) { return rintf(x); }
GPU_INLINE float root(float x) { return __fsqrt_rn(x); }
GPU_INLINE float half_to_float(uint16_t h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}

template <class T>
GPU_INLINE T shuffle_xor(T value, int, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

/// The table's values, 4 bytes a word, of 4 + 4 nibbles.
GPU_INLINE Words2 look_up(uint32_t nibbles, Words4 table) {
  // A selector has 3 bits: both halves of the table are asked, then each byte takes its half.
  const uint32_t three_bits = nibbles & 0x77777777u;
  const uint32_t half = 0x32103210u | (nibbles & 0x88888888u) >> 1;
  uint32_t mixed[2];  // values of low and high nibbles in turn
  for (int i = 0; i < 2; ++i) {
    const uint32_t low = __byte_perm(table.x, table.y, three_bits >> 16 * i);
    const uint32_t high = __byte_perm(table.z, table.w, three_bits >> 16 * i);
    mixed[i] = __byte_perm(low, high, half >> 16 * i);
  }
  return Words2{__byte_perm(mixed[0], mixed[1], 0x6420), __byte_perm(mixed[0], mixed[1], 0x7531)};
}

using Quant = int8_t;
using Quad = uint32_t;
using Dot = int32_t;
constexpr Dot kDotBase = 0x4b400000;  // of 12582912.0f: integers added to it are added to that
GPU_INLINE float float_of_dot(Dot dot) { return float_of(uint32_t(dot)) - 12582912.0f; }
GPU_INLINE Quant as_quant(int q) { return Quant(q); }
template <int kOffset>
GPU_INLINE Dot first_dot(int32_t sum) {
  return -kOffset * sum;
}
template <int kOffset>
GPU_INLINE Dot dot4(uint32_t codes, Quad q, Dot acc) {
  return __dp4a(int(codes), int(q), acc);
}

/// The quants of a block, four to a place.
struct Quads {
  Quad of[8];
};
GPU_INLINE Quads load_quads(Global<const Quant> block) {
  const uint4 a = as_global<const uint4>(block)[0], b = as_global<const uint4>(block)[1];
  return Quads{{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

/// Which lane holds what: emulated/gpu.h.
GPU_INLINE int fragment_row(int lane) { return lane / 4; }
GPU_INLINE int fragment_pair(int lane) { return lane % 4; }
using Fragment = Words2;
GPU_INLINE int64_t fragment_place(int g, int c, int64_t stride) { return g * stride + 8 * c; }
GPU_INLINE Fragment load_fragment(Global<const uint8_t> at, int64_t) {
  return as_global<const Words2>(at)[0];
}
/// sum = first + the dots of 16 elements.
template <int kOffset>
GPU_INLINE void multiply16(int32_t (&sum)[4], uint32_t low_row, uint32_t high_row, uint32_t x,
                           const int32_t (&first)[4]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%7,%8,%9,%10};"
      : "=r"(sum[0]), "=r"(sum[1]), "=r"(sum[2]), "=r"(sum[3])
      : "r"(low_row), "r"(high_row), "r"(x), "r"(first[0]), "r"(first[1]), "r"(first[2]),
        "r"(first[3]));
#else
  asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%4,%5};"
      : "=r"(sum[0]), "=r"(sum[1])
      : "r"(low_row), "r"(x), "r"(first[0]), "r"(first[1]));
  asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%4,%5};"
      : "=r"(sum[2]), "=r"(sum[3])
      : "r"(high_row), "r"(x), "r"(first[2]), "r"(first[3]));
#endif
}
/// The same of 32 elements: words of both halves.
template <int kOffset>
GPU_INLINE void multiply32(int32_t (&sum)[4], Words2 low_row, Words2 high_row, Fragment x,
                           const int32_t (&first)[4]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%11,%12,%13};"
      : "=r"(sum[0]), "=r"(sum[1]), "=r"(sum[2]), "=r"(sum[3])
      : "r"(low_row.x), "r"(high_row.x), "r"(low_row.y), "r"(high_row.y), "r"(x.x), "r"(x.y),
        "r"(first[0]), "r"(first[1]), "r"(first[2]), "r"(first[3]));
#else
  int32_t half[4];
  multiply16<kOffset>(half, low_row.x, high_row.x, x.x, first);
  multiply16<kOffset>(sum, low_row.y, high_row.y, x.y, half);
#endif
}

}  // namespace gpu
}  // namespace gemtp
