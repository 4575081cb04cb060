// The words that kernels are written in, for the emulated device. GEMTP_GPU_FLOAT_QUANTS: products
// of quants are made in floats, as on Apple's GPUs; without it in integers, as on NVIDIA's.
#pragma once

#include <cstdint>
#include <cstring>

#include "backend/cpu/scalar_math.h"
#include "backend/gpu/emulated/device.h"
#include "backend/gpu/emulated/memory.h"

#define GPU_INLINE inline
#define GPU_SHARED          // where a reference points: to the block's memory,
#define GPU_LOCAL           // the thread's own,
#define GPU_CONSTANT const  // the kernel's arguments
#define GPU_INT static constexpr int
#define GPU_FLOAT static constexpr float
#define GPU_UNROLL
#define GPU_NO_UNROLL

namespace gemtp::gpu {

template <class T, class U>
Global<T> as_global(Global<U> p) {
  return Global<T>(p.address);
}

inline void barrier(int line = __builtin_LINE()) { block_barrier(line); }
inline void warp_barrier(int line = __builtin_LINE()) { order_warp(line); }

inline uint32_t bits_of(float x) { return gemtp_f32_bits(x); }
inline float float_of(uint32_t bits) { return gemtp_f32_from_bits(bits); }
inline float fused(float a, float b, float c) { return gemtp_fma(a, b, c); }
inline float nearest(float x) { return gemtp_rint(x); }
inline float root(float x) { return gemtp_sqrt(x); }
inline float half_to_float(uint16_t h) { return gemtp_f16_to_f32(h); }

template <class T>
T shuffle(T value, int lane, int line = __builtin_LINE()) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  void* const* all = warp_meeting(reinterpret_cast<void*>(bits), line, nullptr);
  bits = reinterpret_cast<uint64_t>(all[lane]);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
T shuffle_xor(T value, int lane, int mask, int line = __builtin_LINE()) {
  return shuffle(value, lane ^ mask, line);
}

inline int32_t byte_of(uint32_t word, int i) { return static_cast<int8_t>(word >> (8 * i)); }

/// The table's values, 4 bytes a word, of 4 + 4 nibbles.
inline Words2 look_up(uint32_t nibbles, Words4 table) {
  const uint32_t words[4] = {table.x, table.y, table.z, table.w};
  const auto value = [&](uint32_t n) { return words[n / 4] >> (n % 4 * 8) & 255; };
  Words2 out = {0, 0};
  for (int i = 0; i < 4; ++i) {
    out.x |= value(nibbles >> (8 * i) & 15) << (8 * i);
    out.y |= value(nibbles >> (8 * i + 4) & 15) << (8 * i);
  }
  return out;
}

#ifdef GEMTP_GPU_FLOAT_QUANTS
using Quant = float;
struct alignas(16) Quad {
  float x, y, z, w;
};
using Dot = float;
GPU_INT kManyRows = 16;
constexpr Dot kDotBase = 0;
inline float float_of_dot(Dot dot) { return dot; }
inline Quant as_quant(int q) { return static_cast<float>(q); }
template <int kOffset>
Dot first_dot(int32_t) {
  return 0;
}
template <int kOffset>
Dot dot4(uint32_t codes, Quad q, Dot acc) {
  const float x[4] = {q.x, q.y, q.z, q.w};
  for (int i = 0; i < 4; ++i)
    acc = fused(static_cast<float>(byte_of(codes, i) - kOffset), x[i], acc);
  return acc;
}
#else
using Quant = int8_t;
using Quad = uint32_t;
using Dot = int32_t;
constexpr Dot kDotBase = 0x4b400000;  // of 12582912.0f: integers added to it are added to that
inline float float_of_dot(Dot dot) { return float_of(static_cast<uint32_t>(dot)) - 12582912.0f; }
inline Quant as_quant(int q) { return static_cast<int8_t>(q); }
template <int kOffset>
Dot first_dot(int32_t sum) {
  return -kOffset * sum;
}
template <int kOffset>
Dot dot4(uint32_t codes, Quad q, Dot acc) {
  for (int i = 0; i < 4; ++i) acc += byte_of(codes, i) * byte_of(q, i);
  return acc;
}

#define GPU_TENSOR 1
GPU_INT kManyRows = 32;
/// A warp's fragments of int8 matrices: 16 rows of weights times 8 of activations. Lane 4 g + c
/// holds of weight rows g and g + 8, and of activation row g, elements 4 c to 4 c + 3, of each
/// half of 16 elements; and the products of weight rows g, g + 8 with activation rows 2 c, 2 c + 1.
struct Fragments {
  uint32_t weights[2], activations;
  int32_t* products;  // [4]: rows g and 2 c, g and 2 c + 1, g + 8 and 2 c, g + 8 and 2 c + 1
};
inline void multiply_fragments(void* const* lanes) {
  const auto of = [&](int lane) { return static_cast<const Fragments*>(lanes[lane]); };
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      int32_t& sum = of(lane)->products[i];
      for (int c = 0; c < 4; ++c) {
        const uint32_t w = of(lane / 4 * 4 + c)->weights[i / 2];
        const uint32_t x = of((lane % 4 * 2 + i % 2) * 4 + c)->activations;
        for (int j = 0; j < 4; ++j) sum += byte_of(w, j) * byte_of(x, j);
      }
    }
}
/// sum = first + the dots of 16 elements.
inline void multiply16(int32_t (&sum)[4], uint32_t low_row, uint32_t high_row, uint32_t x,
                       const int32_t (&first)[4], int line = __builtin_LINE()) {
  for (int i = 0; i < 4; ++i) sum[i] = first[i];
  Fragments own = {{low_row, high_row}, x, sum};
  warp_meeting(&own, line, multiply_fragments);
}
/// The same of 32 elements: words of both halves.
inline void multiply32(int32_t (&sum)[4], Words2 low_row, Words2 high_row, Words2 x,
                       const int32_t (&first)[4], int line = __builtin_LINE()) {
  int32_t half[4];
  multiply16(half, low_row.x, high_row.x, x.x, first, line);
  multiply16(sum, low_row.y, high_row.y, x.y, half, line);
}
#endif

/// The quants of a block, four to a place.
struct Quads {
  Quad of[8];
};
inline Quads load_quads(Global<const Quant> block) {
  Quads out;
  for (int i = 0; i < 8; ++i) out.of[i] = as_global<const Quad>(block)[i];
  return out;
}

}  // namespace gemtp::gpu
