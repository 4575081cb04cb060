// All kernels but the dot products of quantized blocks, written once over a vector of 16 floats:
// those of elements and rows here, the others in vector_matmul.h and vector_attention.h. An
// instruction set's file first defines, in an unnamed namespace,
//
//   F32x16          16 lanes; operators + - * /, and the functions
//   zero() set1(s) load(p) load_n(p, n) store(p, v) store_n(p, v, n)      n in 0..16: the first n
//   load_f16, load_bf16, store_f16, store_f16_n                           lanes, the others are 0
//   fma(a, b, c) fnma(a, b, c) = fma(-a, b, c)
//   max(a, b) = a > b ? a : b, min(a, b) = a < b ? a : b (b where one is NaN)
//   round_even(v) abs_of(v) with_sign(v, s) = |v| bits or'ed with the sign of s, for v >= 0
//   power_of_two(n) for integral n in -126..127
//   select_lt(a, b, x, y) = a < b ? x : y
//   select_lanes(begin, end, x, y): lanes begin..end-1 of x, the others of y
//   fold(v): the sum in the order of lane16; max_of(v): the largest lane
//   load_u8(p), load_i8(p): 16 bytes as floats
//   store_q8(to, v0, v1): 32 floats rounded to int8 at to.q; sets to's sums (gemtp_q8_sums)
//   prefetch(p): the cache line of p; kBytesAhead: how far ahead of use weights are prefetched
//   kStreams: quantized tiles to read side by side for one activation row, half as many for two
//       and so on up to kStreamedRows
//   kChains: independent accumulators (each F32x16) that keep the FMA units busy
//   kTileQueries, kTileVectors: attention's sums in registers, queries by vectors of keys or head
//       dims; as many registers as there are, less kTileVectors and one
//
// then includes the three, and adds a struct for each kind of quants in kernels.h: Bytes,
// Nibbles<8>, Nibbles<0>, Fives<16>, Fives<0>, Sixes (with groups), Table and GroupTable (Table
// with groups):
//
//   kBlockBytes: bytes of one block in the tile, without scales
//   kDirectRows: up to this many activation rows keep their sums in registers
//   dots<n>(w, x, dot), n <= kDirectRows: dot[i] = the exact dots of the packed block w with row i
//       of the activation block x, those of its groups times their scales where it has any
//   and where kDirectRows < GEMTP_PANEL, for more rows, whose sums live in memory:
//   kUnpackedBytes, unpack(w, buffer): a block in the form that many rows are best served from, in
//       `buffer` (64-byte aligned) or in place; returns where
//   kGroup, unpacked_dots<n>(u, w, x, dot), n <= kGroup: like dots, for that form; rows are
//       processed in groups of kGroup and kGroup - 1, so 2 <= kGroup <= kDirectRows
//
// Everything has internal linkage: nothing compiled with wide flags can be picked by the linker for
// a caller elsewhere.
#pragma once

#include <stdint.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar_math.h"

// If every instruction is a loop or is followed by checks, unrolled code takes minutes to compile.
#if defined(GEMTP_EMULATE_AVX512) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GEMTP_UNROLL
#define GEMTP_NO_UNROLL
#elif defined(__clang__)
#define GEMTP_UNROLL _Pragma("unroll")
#define GEMTP_NO_UNROLL _Pragma("nounroll")
#elif defined(__GNUC__)
#define GEMTP_UNROLL _Pragma("GCC unroll 16")
#define GEMTP_NO_UNROLL _Pragma("GCC unroll 1")
#else
#define GEMTP_UNROLL
#define GEMTP_NO_UNROLL
#endif

#if defined(_MSC_VER)
#define GEMTP_INLINE inline __forceinline
#define GEMTP_NOINLINE __declspec(noinline)
#else
#define GEMTP_INLINE inline __attribute__((always_inline))
#define GEMTP_NOINLINE __attribute__((noinline))
#endif

namespace {

constexpr int64_t kTile = GEMTP_TILE;
constexpr int64_t kBlock = GEMTP_BLOCK;
constexpr int64_t kChunk = GEMTP_CHUNK;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// ---- elementary functions: the operations of scalar_math.h, lane by lane ------------------------

inline F32x16 flush(F32x16 v) { return select_lt(abs_of(v), set1(GEMTP_TINY), zero(), v); }

inline F32x16 exp_of(F32x16 x) {
  const F32x16 low = set1(GEMTP_EXP_LOW);
  const F32x16 c = min(max(x, low), set1(GEMTP_EXP_HIGH));
  const F32x16 n = round_even(c * set1(GEMTP_LOG2E));
  F32x16 r = fnma(n, set1(GEMTP_LN2_HI), c);
  r = fnma(n, set1(GEMTP_LN2_LO), r);
  F32x16 p = set1(GEMTP_EXP_P4);
  p = fma(p, r, set1(GEMTP_EXP_P3));
  p = fma(p, r, set1(GEMTP_EXP_P2));
  p = fma(p, r, set1(GEMTP_EXP_P1));
  p = fma(p, r, set1(GEMTP_EXP_P0));
  const F32x16 e = (fma(p, r * r, r) + set1(1.0f)) * power_of_two(n);
  return select_lt(x, low, zero(), e);
}

inline F32x16 tanh_of(F32x16 x) {
  const F32x16 a = abs_of(x);
  const F32x16 z = x * x;
  F32x16 q = set1(GEMTP_TANH_Q4);
  q = fma(q, z, set1(GEMTP_TANH_Q3));
  q = fma(q, z, set1(GEMTP_TANH_Q2));
  q = fma(q, z, set1(GEMTP_TANH_Q1));
  q = fma(q, z, set1(GEMTP_TANH_Q0));
  const F32x16 small = fma(x * z, q, x);
  const F32x16 large = set1(1.0f) - set1(2.0f) / (exp_of(a + a) + set1(1.0f));
  return select_lt(a, set1(GEMTP_TANH_SMALL), small, with_sign(large, x));
}

inline F32x16 gelu_of(F32x16 x) {
  const F32x16 inner = fma(set1(GEMTP_GELU_CUBIC) * x * x, x, x);
  return x / (set1(1.0f) + exp_of(set1(GEMTP_GELU_SCALE) * inner));
}

// ---- element by element -------------------------------------------------------------------------

template <class Fn>
inline void map(const float* x, int64_t n, float* y, Fn fn) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, fn(load(x + i)));
  if (i < n) store_n(y + i, fn(load_n(x + i, n - i)), n - i);
}

template <class Fn>
inline void map(const float* a, const float* b, int64_t n, float* y, Fn fn) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, fn(load(a + i), load(b + i)));
  if (i < n) store_n(y + i, fn(load_n(a + i, n - i), load_n(b + i, n - i)), n - i);
}

template <class Fn>
inline void map(const float* a, const float* b, const float* c, int64_t n, float* y, Fn fn) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, fn(load(a + i), load(b + i), load(c + i)));
  if (i < n)
    store_n(y + i, fn(load_n(a + i, n - i), load_n(b + i, n - i), load_n(c + i, n - i)), n - i);
}

void gelu_mul(const float* gate, const float* up, int64_t n, float* y) {
  map(gate, up, n, y, [](F32x16 g, F32x16 u) { return flush(gelu_of(g) * u); });
}

void softcap(const float* x, int64_t n, float cap, float* y) {
  const F32x16 c = set1(cap);
  map(x, n, y, [&](F32x16 v) { return flush(c * tanh_of(v / c)); });
}

void scale(const float* x, float s, int64_t n, float* y) {
  const F32x16 factor = set1(s);
  map(x, n, y, [&](F32x16 v) { return flush(v * factor); });
}

void axpy(float s, const float* x, int64_t n, float* y) {
  const F32x16 factor = set1(s);
  map(x, y, n, y, [&](F32x16 v, F32x16 acc) { return flush(fma(factor, v, acc)); });
}

void to_f16(const float* x, int64_t n, uint16_t* y) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store_f16(y + i, load(x + i));
  if (i < n) store_f16_n(y + i, load_n(x + i, n - i), n - i);
}

// ---- over a row ---------------------------------------------------------------------------------

inline float inverse_rms(const float* x, int64_t n, float eps) {
  F32x16 lanes = zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const F32x16 v = load(x + i);
    lanes = fma(v, v, lanes);
  }
  if (i < n) {  // lanes past the end add +0 to sums that are never -0
    const F32x16 v = load_n(x + i, n - i);
    lanes = fma(v, v, lanes);
  }
  return 1.0f / gemtp_sqrt(fold(lanes) / static_cast<float>(n) + eps);
}

void rms_norm(const float* x, const float* w, int64_t n, float eps, float* y) {
  const F32x16 inv = set1(inverse_rms(x, n, eps));
  if (w)
    map(x, w, n, y, [&](F32x16 v, F32x16 weight) { return flush((v * inv) * weight); });
  else
    map(x, n, y, [&](F32x16 v) { return flush(v * inv); });
}

void rms_norm_add(const float* x, const float* w, int64_t n, float eps, const float* r, float* y) {
  const F32x16 inv = set1(inverse_rms(x, n, eps));
  map(x, w, r, n, y, [&](F32x16 v, F32x16 weight, F32x16 residual) {
    return flush(residual + (v * inv) * weight);
  });
}

void rope(float* x, const float* cos, const float* sin, int64_t n) {
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; i += 16) {
    const int64_t count = smaller(16, half - i);
    const F32x16 a = load_n(x + i, count), b = load_n(x + half + i, count);
    const F32x16 c = load_n(cos + i, count), s = load_n(sin + i, count);
    store_n(x + i, flush(fnma(b, s, a * c)), count);
    store_n(x + half + i, flush(fma(a, s, b * c)), count);
  }
}

void quantize_q8(const float* x, int64_t k, int64_t n, gemtp_q8_rows to) {
  for (int64_t b = 0; b < k / kBlock; ++b, x += kBlock, to = gemtp_q8_next(to, n)) {
    const F32x16 v0 = load(x), v1 = load(x + 16);
    // A NaN is never the larger one: both steps keep their second operand.
    const float amax = max_of(max(abs_of(v1), max(abs_of(v0), zero())));
    const bool is_zero = amax < GEMTP_TINY;
    *to.d = is_zero ? 0.0f : amax / 127.0f;
    const F32x16 id = set1(is_zero ? 0.0f : 1.0f / *to.d);
    const F32x16 low = set1(-127.0f);
    store_q8(to, max(v0 * id, low), max(v1 * id, low));
  }
}

// ---- shared by the matmuls and attention --------------------------------------------------------

struct F32 {
  using Element = float;
  static F32x16 load16(const float* p) { return load(p); }
};

struct F16 {
  using Element = uint16_t;
  static F32x16 load16(const uint16_t* p) { return load_f16(p); }
};

struct Bf16 {
  using Element = uint16_t;
  static F32x16 load16(const uint16_t* p) { return load_bf16(p); }
};

// Calls fn.template operator()<n>() for the n in 1..kMax that equals `n`.
template <int kMax, class Fn>
inline void with_constant(int64_t n, Fn& fn) {
  if constexpr (kMax > 1) {
    if (n < kMax) {
      with_constant<kMax - 1>(n, fn);
      return;
    }
  }
  fn.template operator()<kMax>();
}

// Cuts m rows into the fewest passes of at most kMax rows, as even as possible.
template <int kMax, class Fn>
inline void for_each_pass(int64_t m, Fn fn) {
  const int64_t passes = (m + kMax - 1) / kMax;
  for (int64_t p = 0; p < passes; ++p) {
    const int64_t first = m * p / passes;
    auto run = [&]<int kRows>() { fn.template operator()<kRows>(first); };
    with_constant<kMax>(m * (p + 1) / passes - first, run);
  }
}

}  // namespace
