// The words that kernels are written in, for Metal. Compiled in safe math mode, with precise
// functions, and without contraction, which that mode leaves on: one rounding for each operation as
// it is written.
#pragma once

#include <metal_stdlib>

#pragma METAL fp contract(off)

#define GPU_INLINE inline
#define GPU_SHARED threadgroup  // where a reference points: to the block's memory,
#define GPU_LOCAL thread        // the thread's own,
#define GPU_CONSTANT constant   // the kernel's arguments
#define GPU_INT static constexpr constant int
#define GPU_FLOAT static constexpr constant float
#define GPU_UNROLL _Pragma("unroll")
#define GPU_NO_UNROLL _Pragma("unroll 1")
#define GPU_KERNEL(name, ...)                                                                  \
  [[max_total_threads_per_threadgroup(__VA_ARGS__::kThreads)]] kernel void gemtp_##name(       \
      constant __VA_ARGS__::Arguments& arguments [[buffer(0)]],                                \
      uint3 grid [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]], \
      uint warp [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) { \
    GPU_THREADGROUP_VARIABLE __VA_ARGS__::Memory memory;                                       \
    __VA_ARGS__::run(arguments, memory,                                                        \
                     Place{int(index), int(warp), int(lane), int(grid.x), int(grid.y)});       \
  }
#ifndef GPU_THREADGROUP_VARIABLE  // compilers that only check the sources say it differently
#define GPU_THREADGROUP_VARIABLE threadgroup
#endif

namespace gemtp {
namespace gpu {

using namespace metal;

template <class T>
using Global = device T*;
template <class T, int kSize>
using SharedArray = T[kSize];
template <class T, class U>
GPU_INLINE Global<T> as_global(Global<U> p) {
  return (device T*)p;
}

struct Place {
  int index, warp, lane;  // of a thread in its block: warp 32 + lane == index
  int block, row;         // x and y in the grid
};

using Words2 = uint2;
using Words4 = uint4;

GPU_INLINE void barrier() {
  threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
}

GPU_INLINE void warp_barrier() { simdgroup_barrier(mem_flags::mem_threadgroup); }

GPU_INLINE uint32_t bits_of(float x) { return as_type<uint32_t>(x); }
GPU_INLINE float float_of(uint32_t bits) { return as_type<float>(bits); }
GPU_INLINE float fused(float a, float b, float c) { return fma(a, b, c); }
GPU_INLINE float nearest(float x) { return rint(x); }
GPU_INLINE float root(float x) { return precise::sqrt(x); }
GPU_INLINE float half_to_float(uint16_t h) { return float(as_type<half>(h)); }

template <class T>
GPU_INLINE T shuffle_xor(T value, int, int mask) {
  return simd_shuffle_xor(value, ushort(mask));
}

/// The table's values, 4 bytes a word, of 4 + 4 nibbles.
GPU_INLINE Words2 look_up(uint32_t nibbles, Words4 table) {
  Words2 out = Words2{0, 0};
  for (int i = 0; i < 32; i += 8) {
    const uint32_t low = nibbles >> i & 15, high = nibbles >> (i + 4) & 15;
    out.x |= (table[low / 4] >> (low % 4 * 8) & 255) << i;
    out.y |= (table[high / 4] >> (high % 4 * 8) & 255) << i;
  }
  return out;
}

// There are no integer dot products: floats hold all sums of quants exactly, in any order.
using Quant = float;
using Quad = float4;
using Dot = float;
constexpr constant Dot kDotBase = 0;
GPU_INLINE float float_of_dot(Dot dot) { return dot; }
GPU_INLINE Quant as_quant(int q) { return float(q); }
template <int kOffset>
GPU_INLINE Dot first_dot(int32_t) {
  return 0;
}
/// Four elements. Bytes become halves by their place in 1024 + n; the subtraction is exact, too.
template <int kOffset>
GPU_INLINE half4 halves_of(uint32_t codes) {
  const uint32_t unsigned_codes = codes ^ 0x80808080u;
  const half base = half(1024 + 128 + kOffset);
  const half2 even = as_type<half2>((unsigned_codes & 0x00ff00ffu) | 0x64006400u) - base;
  const half2 odd = as_type<half2>((unsigned_codes >> 8 & 0x00ff00ffu) | 0x64006400u) - base;
  return half4{even.x, odd.x, even.y, odd.y};
}
template <int kOffset>
GPU_INLINE Dot dot4(uint32_t codes, Quad q, Dot acc) {
  const half4 w = halves_of<kOffset>(codes);
  acc = fma(float(w.x), q.x, acc);
  acc = fma(float(w.y), q.y, acc);
  acc = fma(float(w.z), q.z, acc);
  return fma(float(w.w), q.w, acc);
}

/// The quants of a block, four to a place.
struct Quads {
  Quad of[8];
};
GPU_INLINE Quads load_quads(Global<const Quant> block) {
  Quads out;
  for (int i = 0; i < 8; ++i) out.of[i] = as_global<const Quad>(block)[i];
  return out;
}

/// Which lane holds what: emulated/gpu.h.
GPU_INLINE int fragment_row(int lane) { return (lane / 4 & 4) + lane / 2 % 4; }
GPU_INLINE int fragment_pair(int lane) { return (lane / 4 & 2) + lane % 2; }
struct Fragment {
  half4 x, y;
};
GPU_INLINE int64_t fragment_place(int g, int c, int64_t stride) {
  return 2 * c * stride + 4 * (g / 2 * 8 + g % 2);
}
GPU_INLINE Fragment load_fragment(Global<const uint8_t> at, int64_t stride) {
  const Global<const Quant> a = as_global<const Quant>(at), b = as_global<const Quant>(at + stride);
  return Fragment{half4{half(a[0]), half(b[0]), half(a[2]), half(b[2])},
                  half4{half(a[4]), half(b[4]), half(a[6]), half(b[6])}};
}
/// sum += the products of a warp's matrices of 8 x 8.
GPU_INLINE void multiply8(GPU_LOCAL float2& sum, half2 a, half2 b) {
  simdgroup_half8x8 weights, activations;
  simdgroup_float8x8 products;
  for (int i = 0; i < 2; ++i) {
    weights.thread_elements()[i] = a[i];
    activations.thread_elements()[i] = b[i];
    products.thread_elements()[i] = sum[i];
  }
  simdgroup_multiply_accumulate(products, weights, activations, products);
  for (int i = 0; i < 2; ++i) sum[i] = products.thread_elements()[i];
}
/// sum = first + the dots of 16 elements.
template <int kOffset>
GPU_INLINE void multiply16(GPU_LOCAL float (&sum)[4], uint32_t low_row, uint32_t high_row, half4 x,
                           GPU_LOCAL const float (&first)[4]) {
  for (int i = 0; i < 2; ++i) {
    const half4 w = halves_of<kOffset>(i ? high_row : low_row);
    float2 dots = float2{first[2 * i], first[2 * i + 1]};
    multiply8(dots, w.xy, x.xy);
    multiply8(dots, w.zw, x.zw);
    sum[2 * i] = dots.x;
    sum[2 * i + 1] = dots.y;
  }
}
/// The same of 32 elements: words of both halves.
template <int kOffset>
GPU_INLINE void multiply32(GPU_LOCAL float (&sum)[4], Words2 low_row, Words2 high_row, Fragment x,
                           GPU_LOCAL const float (&first)[4]) {
  float half_sum[4];
  multiply16<kOffset>(half_sum, low_row.x, high_row.x, x.x, first);
  multiply16<kOffset>(sum, low_row.y, high_row.y, x.y, half_sum);
}

}  // namespace gpu
}  // namespace gemtp
