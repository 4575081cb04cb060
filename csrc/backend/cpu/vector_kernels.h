// Every kernel but the dots of quantized blocks, written once over a vector of 16 floats. An
// instruction set's file first defines, in an unnamed namespace,
//
//   F32x16          16 lanes; operators + - * /, and the functions
//   zero() set1(s) load(p) load_n(p, n) store(p, v) store_n(p, v, n)      n in 0..16: the first n
//   load_f16, load_f16_n, load_bf16, store_f16, store_f16_n               lanes, the others are 0
//   fma(a, b, c) fnma(a, b, c) = fma(-a, b, c)
//   max(a, b) = a > b ? a : b, min(a, b) = a < b ? a : b (b where one is NaN)
//   round_even(v) abs_of(v) with_sign(v, s) = |v| bits or'ed with the sign of s, for v >= 0
//   power_of_two(n) for integral n in -126..127
//   select_lt(a, b, x, y) = a < b ? x : y
//   select_lanes(begin, end, x, y): lanes begin..end-1 of x, the others of y
//   fold(v): the sum in the order of lane16; max_of(v): the largest lane
//   store_q8(q, v0, v1): 32 floats rounded to int8, returns their sum
//   prefetch(p): the cache line of p; kBytesAhead: how far ahead of use weights are prefetched
//   kStreams: quantized tiles to read side by side for one activation row, half as many for two
//       and so on up to kStreamedRows
//   kChains: independent accumulators (each F32x16) that keep the FMA units busy
//
// then includes this file, and adds a struct for each quantized format:
//
//   kBlockBytes: bytes of one block in the tile, without scales; kMaxRows: rows of one pass
//   dots<kRows>(w, q, k, sum, blocks, dot): dot[i] = the exact dots of the block at w with the
//       activation block at q + i * k, whose quants sum to sum[i * blocks]
//
// Everything has internal linkage: nothing compiled with wide flags can be
// picked by the linker for a caller elsewhere.
#pragma once

#include <stdint.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar_math.h"

#if defined(__clang__)
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
#else
#define GEMTP_INLINE inline __attribute__((always_inline))
#endif

namespace {

constexpr int64_t kTile = GEMTP_TILE;
constexpr int64_t kBlock = GEMTP_BLOCK;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// ---- elementary functions: the operations of scalar_math.h, lane by lane ------------------------

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
  map(gate, up, n, y, [](F32x16 g, F32x16 u) { return gelu_of(g) * u; });
}

void softcap(const float* x, int64_t n, float cap, float* y) {
  const F32x16 c = set1(cap);
  map(x, n, y, [&](F32x16 v) { return c * tanh_of(v / c); });
}

void scale(const float* x, float s, int64_t n, float* y) {
  const F32x16 factor = set1(s);
  map(x, n, y, [&](F32x16 v) { return v * factor; });
}

void add(const float* x, const float* r, int64_t n, float* y) {
  map(x, r, n, y, [](F32x16 a, F32x16 b) { return a + b; });
}

void axpy(float s, const float* x, int64_t n, float* y) {
  const F32x16 factor = set1(s);
  map(x, y, n, y, [&](F32x16 v, F32x16 acc) { return fma(factor, v, acc); });
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
  if (i < n) {  // the lanes past the end add +0 to sums that are never -0
    const F32x16 v = load_n(x + i, n - i);
    lanes = fma(v, v, lanes);
  }
  return 1.0f / __builtin_sqrtf(fold(lanes) / static_cast<float>(n) + eps);
}

void rms_norm(const float* x, const float* w, int64_t n, float eps, float* y) {
  const F32x16 inv = set1(inverse_rms(x, n, eps));
  if (w)
    map(x, w, n, y, [&](F32x16 v, F32x16 weight) { return (v * inv) * weight; });
  else
    map(x, n, y, [&](F32x16 v) { return v * inv; });
}

void rms_norm_add(const float* x, const float* w, int64_t n, float eps, const float* r, float* y) {
  const F32x16 inv = set1(inverse_rms(x, n, eps));
  map(x, w, r, n, y,
      [&](F32x16 v, F32x16 weight, F32x16 residual) { return residual + (v * inv) * weight; });
}

void rope(float* x, const float* cos, const float* sin, int64_t n) {
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; i += 16) {
    const int64_t count = smaller(16, half - i);
    const F32x16 a = load_n(x + i, count), b = load_n(x + half + i, count);
    const F32x16 c = load_n(cos + i, count), s = load_n(sin + i, count);
    store_n(x + i, fnma(b, s, a * c), count);
    store_n(x + half + i, fma(a, s, b * c), count);
  }
}

void quantize_q8(const float* x, int64_t k, int8_t* q, float* d, int32_t* sum) {
  for (int64_t b = 0; b < k / kBlock; ++b) {
    const F32x16 v0 = load(x + b * kBlock), v1 = load(x + b * kBlock + 16);
    // A NaN is never the larger one: both steps keep their second operand.
    const float amax = max_of(max(abs_of(v1), max(abs_of(v0), zero())));
    const bool is_zero = amax < 1e-30f;
    d[b] = is_zero ? 0.0f : amax / 127.0f;
    const F32x16 id = set1(is_zero ? 0.0f : 1.0f / d[b]);
    const F32x16 low = set1(-127.0f);
    sum[b] = store_q8(q + b * kBlock, max(v0 * id, low), max(v1 * id, low));
  }
}

// ---- float matmuls: lanes are output rows -------------------------------------------------------

struct F32 {
  using Element = float;
  static F32x16 load16(const float* p) { return load(p); }
  static F32x16 load_first(const float* p, int64_t n) { return load_n(p, n); }
};

struct F16 {
  using Element = uint16_t;
  static F32x16 load16(const uint16_t* p) { return load_f16(p); }
  static F32x16 load_first(const uint16_t* p, int64_t n) { return load_f16_n(p, n); }
};

struct Bf16 {
  using Element = uint16_t;
  static F32x16 load16(const uint16_t* p) { return load_bf16(p); }
};

// kTiles tiles by kRows activation rows, all accumulators in registers.
template <class Format, int kRows, int kTiles>
void float_tiles(const gemtp_matmul& a, int64_t tile, int64_t row) {
  using Element = typename Format::Element;
  const Element* w[kTiles];
  GEMTP_UNROLL
  for (int t = 0; t < kTiles; ++t)
    w[t] = reinterpret_cast<const Element*>(a.weights + (tile + t) * a.tile_bytes);
  const float* x[kRows];
  GEMTP_UNROLL
  for (int i = 0; i < kRows; ++i) x[i] = a.x + (row + i) * a.x_stride;
  F32x16 acc[kRows][kTiles];
  GEMTP_UNROLL
  for (int i = 0; i < kRows; ++i) {
    GEMTP_UNROLL
    for (int t = 0; t < kTiles; ++t) acc[i][t] = zero();
  }
  for (int64_t k = 0; k < a.k; ++k) {
    F32x16 weight[kTiles];
    GEMTP_UNROLL
    for (int t = 0; t < kTiles; ++t) weight[t] = Format::load16(w[t] + k * kTile);
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const F32x16 xk = set1(x[i][k]);
      GEMTP_UNROLL
      for (int t = 0; t < kTiles; ++t) acc[i][t] = fma(weight[t], xk, acc[i][t]);
    }
  }
  GEMTP_UNROLL
  for (int i = 0; i < kRows; ++i) {
    GEMTP_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      const int64_t first = (tile + t) * kTile;
      store_n(a.y + (row + i) * a.y_stride + first, acc[i][t], smaller(kTile, a.rows - first));
    }
  }
}

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

template <class Format>
void matmul_float(const gemtp_matmul* args) {
  const gemtp_matmul& a = *args;
  int64_t tile = a.tile_begin;
  // Few rows: several tiles at once keep the accumulators many.
  if (a.m <= kChains / 2) {
    auto run = [&]<int kRows>() {
      constexpr int kTiles = kChains / kRows;
      for (; tile + kTiles <= a.tile_end; tile += kTiles)
        float_tiles<Format, kRows, kTiles>(a, tile, 0);
    };
    with_constant<kChains / 2>(a.m, run);
  }
  for (; tile < a.tile_end; ++tile)
    for_each_pass<kChains>(
        a.m, [&]<int kRows>(int64_t row) { float_tiles<Format, kRows, 1>(a, tile, row); });
}

// ---- quantized matmuls --------------------------------------------------------------------------

// One weight tile, or a few consecutive ones, against some activation rows.
struct QuantizedTiles {
  const uint8_t* weights;
  int64_t tile_bytes;
  int64_t next; /* bytes to the tile that this one's place in a pass goes to next, 0 at the end */
  int64_t blocks;
  gemtp_q8_rows x; /* from the first row of the pass on */
  float* y;        /* y[first row of the pass][first row of the first tile] */
  int64_t y_stride;
  int64_t n; /* output rows from the first tile on */
};

// Touches the weights kBytesAhead ahead of block b, in this tile or the next.
template <int kBlockBytes>
inline void prefetch_weights(const QuantizedTiles& t, const uint8_t* tile, int64_t b) {
  b += kBytesAhead / kBlockBytes;
  if (b >= t.blocks) {
    b -= t.blocks;
    tile += t.next;
  }
  GEMTP_UNROLL
  for (int i = 0; i < kBlockBytes; i += 64) prefetch(tile + b * kBlockBytes + i);
  prefetch(tile + t.blocks * kBlockBytes + b * 32);
}

template <class Format, int kRows, int kTiles>
void quantized_tiles(const QuantizedTiles& t) {
  const int64_t k = t.blocks * kBlock;
  F32x16 acc[kTiles][kRows];
  GEMTP_UNROLL
  for (int j = 0; j < kTiles; ++j) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) acc[j][i] = zero();
  }
  for (int64_t b = 0; b < t.blocks; ++b) {
    GEMTP_UNROLL
    for (int j = 0; j < kTiles; ++j) {
      const uint8_t* tile = t.weights + j * t.tile_bytes;
      prefetch_weights<Format::kBlockBytes>(t, tile, b);
      F32x16 dot[kRows];
      Format::template dots<kRows>(tile + b * Format::kBlockBytes, t.x.q + b * kBlock, k,
                                   t.x.sum + b, t.blocks, dot);
      const uint8_t* scales = tile + t.blocks * Format::kBlockBytes;
      const F32x16 dw = load_f16(reinterpret_cast<const uint16_t*>(scales) + b * kTile);
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i)
        acc[j][i] = fma(dot[i], dw * set1(t.x.d[i * t.blocks + b]), acc[j][i]);
    }
  }
  GEMTP_UNROLL
  for (int j = 0; j < kTiles; ++j) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i)
      store_n(t.y + i * t.y_stride + j * kTile, acc[j][i], smaller(kTile, t.n - j * kTile));
  }
}

template <class Format>
void matmul_quantized(const gemtp_matmul* args) {
  const gemtp_matmul& a = *args;
  QuantizedTiles t;
  t.tile_bytes = a.tile_bytes;
  t.blocks = a.k / kBlock;
  t.y_stride = a.y_stride;
  int64_t tile = a.tile_begin;
  const auto set_tiles = [&](int64_t count) {
    t.weights = a.weights + tile * a.tile_bytes;
    t.next = tile + 2 * count <= a.tile_end ? count * a.tile_bytes : 0;
    t.n = a.rows - tile * kTile;
  };
  const auto set_rows = [&](int64_t row) {
    t.x.q = a.xq.q + row * a.k;
    t.x.d = a.xq.d + row * t.blocks;
    t.x.sum = a.xq.sum + row * t.blocks;
    t.y = a.y + row * a.y_stride + tile * kTile;
  };
  // Few rows wait for memory: several tiles at once are several streams, which together come
  // faster than one.
  if (a.m <= kStreamedRows) {
    auto run = [&]<int kRows>() {
      constexpr int kTiles = kStreams / kRows;
      for (; tile + kTiles <= a.tile_end; tile += kTiles) {
        set_tiles(kTiles);
        set_rows(0);
        quantized_tiles<Format, kRows, kTiles>(t);
      }
    };
    with_constant<kStreamedRows>(a.m, run);
  }
  for (; tile < a.tile_end; ++tile) {
    set_tiles(1);
    for_each_pass<Format::kMaxRows>(a.m, [&]<int kRows>(int64_t row) {
      set_rows(row);
      quantized_tiles<Format, kRows, 1>(t);
    });
  }
}

// ---- attention: lanes are keys, then head dims --------------------------------------------------

// scores[h][16 * b + lane] = dot(q[h], key `lane` of block b)
template <class Format, int kHeads, int kBlocks>
void score_blocks(const typename Format::Element* const* keys, int64_t head_dim,
                  const float* const* q, float* scores, int64_t stride) {
  F32x16 s[kHeads][kBlocks];
  GEMTP_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    GEMTP_UNROLL
    for (int b = 0; b < kBlocks; ++b) s[h][b] = zero();
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    F32x16 key[kBlocks];
    GEMTP_UNROLL
    for (int b = 0; b < kBlocks; ++b) key[b] = Format::load16(keys[b] + d * 16);
    GEMTP_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      const F32x16 qd = set1(q[h][d]);
      GEMTP_UNROLL
      for (int b = 0; b < kBlocks; ++b) s[h][b] = fma(qd, key[b], s[h][b]);
    }
  }
  GEMTP_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    GEMTP_UNROLL
    for (int b = 0; b < kBlocks; ++b) store(scores + h * stride + b * 16, s[h][b]);
  }
}

// out[h][d .. d + 16 kChunks - 1] += p[h][t] * value t, over `n` rows of values in order.
template <class Format, int kHeads, int kChunks>
void add_values(const typename Format::Element* v, int64_t head_dim, const float* p, int64_t stride,
                int64_t n, float* const* out, int64_t d) {
  F32x16 acc[kHeads][kChunks];
  GEMTP_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    GEMTP_UNROLL
    for (int c = 0; c < kChunks; ++c) acc[h][c] = load(out[h] + d + c * 16);
  }
  for (int64_t t = 0; t < n; ++t) {
    F32x16 value[kChunks];
    GEMTP_UNROLL
    for (int c = 0; c < kChunks; ++c) value[c] = Format::load16(v + t * head_dim + d + c * 16);
    GEMTP_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      const F32x16 weight = set1(p[h * stride + t]);
      GEMTP_UNROLL
      for (int c = 0; c < kChunks; ++c) acc[h][c] = fma(weight, value[c], acc[h][c]);
    }
  }
  GEMTP_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    GEMTP_UNROLL
    for (int c = 0; c < kChunks; ++c) store(out[h] + d + c * 16, acc[h][c]);
  }
}

// The same for the last head dims, fewer than 16.
template <class Format>
void add_values_tail(const typename Format::Element* v, int64_t head_dim, const float* p, int64_t n,
                     float* out, int64_t d) {
  const int64_t count = head_dim - d;
  F32x16 acc = load_n(out + d, count);
  for (int64_t t = 0; t < n; ++t)
    acc = fma(set1(p[t]), Format::load_first(v + t * head_dim + d, count), acc);
  store_n(out + d, acc, count);
}

template <class Format>
void attend(const gemtp_attention& a) {
  using Element = typename Format::Element;
  const Element* keys = static_cast<const Element*>(a.keys);
  const Element* values = static_cast<const Element*>(a.values);
  const int64_t base = a.first / 16 * 16;  // position of the first score
  const int64_t blocks = a.last / 16 - a.first / 16 + 1;
  const int64_t stride = blocks * 16;  // of one head's scores
  // A block of 16 positions never wraps around the ring: capacity % 16 == 0.
  const auto slot_of = [&](int64_t block) { return (base + block * 16) % a.capacity; };

  for (int64_t block = 0; block < blocks;) {
    const int64_t left = blocks - block;
    const Element* key[kChains];
    for (int64_t b = 0; b < smaller(kChains, left); ++b)
      key[b] = keys + slot_of(block + b) * a.head_dim;
    int64_t done = 1;
    if (a.n_q <= kChains / 2 && left >= kChains / a.n_q) {
      auto run = [&]<int kHeads>() {
        constexpr int kBlocks = kChains / kHeads;
        done = kBlocks;
        score_blocks<Format, kHeads, kBlocks>(key, a.head_dim, a.q, a.scratch + block * 16, stride);
      };
      with_constant<kChains / 2>(a.n_q, run);
    } else {
      for_each_pass<kChains>(a.n_q, [&]<int kHeads>(int64_t h) {
        score_blocks<Format, kHeads, 1>(key, a.head_dim, a.q + h,
                                        a.scratch + h * stride + block * 16, stride);
      });
    }
    block += done;
  }

  // Lanes outside first..last hold whatever old cache slots gave; they are replaced before use.
  const auto only_attended = [&](int64_t block, F32x16 v, F32x16 other) {
    return select_lanes(block == 0 ? a.first - base : 0,
                        smaller(16, a.last - base - block * 16 + 1), v, other);
  };
  for (int64_t h = 0; h < a.n_q; ++h) {
    float* p = a.scratch + h * stride;
    const F32x16 lowest = set1(-__builtin_inff());
    F32x16 maxima = lowest;
    for (int64_t block = 0; block < blocks; ++block)
      maxima = max(only_attended(block, load(p + block * 16), lowest), maxima);
    const F32x16 largest = set1(max_of(maxima));
    for (int64_t block = 0; block < blocks; ++block) {
      const F32x16 e = exp_of(load(p + block * 16) - largest);
      store(p + block * 16, only_attended(block, e, zero()));
    }
    map(a.out[h], a.head_dim, a.out[h], [](F32x16) { return zero(); });
  }

  const int64_t whole = a.head_dim / 16 * 16;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block == 0 ? a.first - base : 0;
    const int64_t end = smaller(16, a.last - base - block * 16 + 1);
    const Element* v = values + (slot_of(block) + begin) * a.head_dim;
    const float* p = a.scratch + block * 16 + begin;
    for_each_pass<kChains>(a.n_q, [&]<int kHeads>(int64_t h) {
      constexpr int kChunks = kChains / kHeads;
      float* const* out = a.out + h;
      int64_t d = 0;
      for (; d + kChunks * 16 <= whole; d += kChunks * 16)
        add_values<Format, kHeads, kChunks>(v, a.head_dim, p + h * stride, stride, end - begin, out,
                                            d);
      for (; d < whole; d += 16)
        add_values<Format, kHeads, 1>(v, a.head_dim, p + h * stride, stride, end - begin, out, d);
      if (d < a.head_dim)
        for (int i = 0; i < kHeads; ++i)
          add_values_tail<Format>(v, a.head_dim, p + (h + i) * stride, end - begin, out[i], d);
    });
  }

  for (int64_t h = 0; h < a.n_q; ++h) {
    F32x16 lanes = zero();  // lanes not attended to add +0 to sums that are never -0
    for (int64_t block = 0; block < blocks; ++block)
      lanes = lanes + load(a.scratch + h * stride + block * 16);
    const F32x16 sum = set1(fold(lanes));
    map(a.out[h], a.head_dim, a.out[h], [&](F32x16 v) { return v / sum; });
  }
}

void attention(const gemtp_attention* args) {
  if (args->kv_f16)
    attend<F16>(*args);
  else
    attend<F32>(*args);
}

}  // namespace
