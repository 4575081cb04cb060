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
T shuffle_xor(T value, int lane, int mask, int line = __builtin_LINE()) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  void* const* all = warp_meeting(reinterpret_cast<void*>(bits), line, nullptr);
  bits = reinterpret_cast<uint64_t>(all[lane ^ mask]);
  std::memcpy(&value, &bits, sizeof value);
  return value;
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
constexpr Dot kDotBase = 0;
inline float float_of_dot(Dot dot) { return dot; }
inline Quant as_quant(int q) { return static_cast<float>(q); }
inline Dot quant_of(const Quad& q, int i) { return (&q.x)[i]; }
template <int kOffset>
Dot element_of(int32_t code) {
  return static_cast<float>(code - kOffset);
}
template <int kOffset>
Dot first_dot(int32_t) {
  return 0;
}

/// Which lane holds what of a warp's matrices: as of Apple's simdgroup_matrix, 8 x 8, twice for 16
/// elements. Lane (g, c) has of weight rows g and g + 8 elements 4 c to 4 c + 3; of activation rows
/// 2 c and 2 c + 1 elements g / 2 * 4 + g % 2, then those 2 behind them.
inline int fragment_row(int lane) { return (lane / 4 & 4) + lane / 2 % 4; }
inline int fragment_pair(int lane) { return (lane / 4 & 2) + lane % 2; }
inline int activation_row(int, int c, int i) { return 2 * c + i % 2; }
inline int activation_element(int g, int, int i) { return g / 2 * 4 + i / 2 * 2 + g % 2; }
struct Fragment {  // of both halves of a block
  Quad x, y;
};
inline int64_t fragment_place(int g, int c, int64_t stride) {
  return 2 * c * stride + 4 * (g / 2 * 8 + g % 2);
}
inline Fragment load_fragment(Global<const uint8_t> at, int64_t stride) {
  const Global<const Quant> a = as_global<const Quant>(at), b = as_global<const Quant>(at + stride);
  return {{a[0], b[0], a[2], b[2]}, {a[4], b[4], a[6], b[6]}};
}
#else
using Quant = int8_t;
using Quad = uint32_t;
using Dot = int32_t;
constexpr Dot kDotBase = 0x4b400000;  // of 12582912.0f: integers added to it are added to that
inline float float_of_dot(Dot dot) { return float_of(static_cast<uint32_t>(dot)) - 12582912.0f; }
inline Quant as_quant(int q) { return static_cast<int8_t>(q); }
inline Dot quant_of(Quad q, int i) { return byte_of(q, i); }
template <int kOffset>
Dot element_of(int32_t code) {
  return code;
}
template <int kOffset>
Dot first_dot(int32_t sum) {
  return -kOffset * sum;
}

/// Which lane holds what of a warp's matrices: as of NVIDIA's mma with int8. Lane (g, c) has of
/// weight rows g and g + 8, and of activation row g, elements 4 c to 4 c + 3.
inline int fragment_row(int lane) { return lane / 4; }
inline int fragment_pair(int lane) { return lane % 4; }
inline int activation_row(int g, int, int) { return g; }
inline int activation_element(int, int c, int i) { return 4 * c + i; }
using Fragment = Words2;  // of both halves of a block
inline int64_t fragment_place(int g, int c, int64_t stride) { return g * stride + 8 * c; }
inline Fragment load_fragment(Global<const uint8_t> at, int64_t) {
  return as_global<const Words2>(at)[0];
}
#endif

template <int kOffset>
Dot dot4(uint32_t codes, Quad q, Dot acc) {
  for (int i = 0; i < 4; ++i) acc += element_of<kOffset>(byte_of(codes, i)) * quant_of(q, i);
  return acc;
}

/// What a lane brings to a product of matrices, and where it gets its own of the results: rows g
/// and 2 c, g and 2 c + 1, g + 8 and 2 c, g + 8 and 2 c + 1.
struct Operands {
  uint32_t weights[2];
  Quad activations;
  Dot* products;  // [4]
};
template <int kOffset>
void multiply_matrices(void* const* lanes) {
  const Operands* of[8][4];
  Dot x[8][16];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = fragment_row(lane), c = fragment_pair(lane);
    of[g][c] = static_cast<const Operands*>(lanes[lane]);
    for (int i = 0; i < 4; ++i)
      x[activation_row(g, c, i)][activation_element(g, c, i)] = quant_of(of[g][c]->activations, i);
  }
  for (int g = 0; g < 8; ++g)
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < 16; ++k)
        of[g][i / 4]->products[i % 4] +=
            element_of<kOffset>(byte_of(of[g][k / 4]->weights[i % 4 / 2], k % 4)) *
            x[i / 4 * 2 + i % 2][k];
}
/// sum = first + the dots of 16 elements.
template <int kOffset>
void multiply16(Dot (&sum)[4], uint32_t low_row, uint32_t high_row, Quad x, const Dot (&first)[4],
                int line = __builtin_LINE()) {
  for (int i = 0; i < 4; ++i) sum[i] = first[i];
  Operands own = {{low_row, high_row}, x, sum};
  warp_meeting(&own, line, multiply_matrices<kOffset>);
}
/// The same of 32 elements: words of both halves.
template <int kOffset>
void multiply32(Dot (&sum)[4], Words2 low_row, Words2 high_row, Fragment x, const Dot (&first)[4],
                int line = __builtin_LINE()) {
  Dot half[4];
  multiply16<kOffset>(half, low_row.x, high_row.x, x.x, first, line);
  multiply16<kOffset>(sum, low_row.y, high_row.y, x.y, half, line);
}

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
