// The matmuls over a vector of 16 floats; see vector_kernels.h for what an instruction set
// provides.
#pragma once

#include "backend/cpu/vector_kernels.h"

namespace {

// ---- float matmuls: lanes are output rows -------------------------------------------------------

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

template <class Format>
void matmul_float(const gemtp_matmul* args) {
  const gemtp_matmul& a = *args;
  int64_t tile = 0;
  // Few rows: several tiles at once keep the accumulators many.
  if (a.m <= kChains / 2) {
    auto run = [&]<int kRows>() {
      constexpr int kTiles = kChains / kRows;
      for (; tile + kTiles <= a.tiles; tile += kTiles)
        float_tiles<Format, kRows, kTiles>(a, tile, 0);
    };
    with_constant<kChains / 2>(a.m, run);
  }
  for (; tile < a.tiles; ++tile)
    for_each_pass<kChains>(
        a.m, [&]<int kRows>(int64_t row) { float_tiles<Format, kRows, 1>(a, tile, row); });
}

// ---- quantized matmuls --------------------------------------------------------------------------

// One weight tile, or a few consecutive ones, against one panel of activation rows.
struct QuantizedTiles {
  const uint8_t* weights;
  int64_t tile_bytes;
  int64_t next; /* bytes to the tile that this one's place in a pass goes to next, 0 at the end */
  int64_t blocks;
  gemtp_q8_rows x; /* the panel */
  int64_t m;       /* its rows */
  float* y;        /* y[first row of the panel][first output row of the first tile] */
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

template <class Format>
inline F32x16 block_scales(const QuantizedTiles& t, const uint8_t* tile, int64_t b) {
  const uint8_t* scales = tile + t.blocks * Format::kBlockBytes;
  return load_f16(reinterpret_cast<const uint16_t*>(scales) + b * kTile);
}

// All kRows rows of the panel, sums in registers. Not inlined, here and below: the registers are
// for one such loop at a time.
template <class Format, int kRows, int kTiles>
GEMTP_NOINLINE void direct_tiles(const QuantizedTiles& t) {
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
      Format::template dots<kRows>(tile + b * Format::kBlockBytes, t.x.q + b * kRows * kBlock,
                                   t.x.bias + b * kRows, dot);
      const F32x16 dw = block_scales<Format>(t, tile, b);
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i)
        acc[j][i] = fma(dot[i], dw * set1(t.x.d[b * kRows + i]), acc[j][i]);
    }
  }
  GEMTP_UNROLL
  for (int j = 0; j < kTiles; ++j) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i)
      store_n(t.y + i * t.y_stride + j * kTile, acc[j][i], smaller(kTile, t.n - j * kTile));
  }
}

// One block of 16 output rows, unpacked at u and with scales dw, against kRows rows of the panel
// from number `at` of all its blocks on; their sums, [kRows][16], in memory.
template <class Format, int kRows>
GEMTP_INLINE void add_unpacked(const uint8_t* u, F32x16 dw, const gemtp_q8_rows& x, int64_t at,
                               float* acc) {
  F32x16 dot[kRows];
  Format::template unpacked_dots<kRows>(u, x.q + at * kBlock, x.bias + at, dot);
  GEMTP_UNROLL
  for (int i = 0; i < kRows; ++i)
    store(acc + i * kTile, fma(dot[i], dw * set1(x.d[at + i]), load(acc + i * kTile)));
}

// A panel whose rows go in groups of kRows and, behind them, kRows - 1: a block is unpacked once
// for all of them.
template <class Format, int kRows>
GEMTP_NOINLINE void unpacked_tile(const QuantizedTiles& t, int64_t groups) {
  alignas(64) uint8_t buffer[Format::kUnpackedBytes];
  alignas(64) float acc[GEMTP_PANEL * kTile];
  const int64_t smaller_from = t.m - (kRows * groups - t.m) * (kRows - 1);
  for (int64_t i = 0; i < t.m; ++i) store(acc + i * kTile, zero());
  for (int64_t b = 0; b < t.blocks; ++b) {
    prefetch_weights<Format::kBlockBytes>(t, t.weights, b);
    const uint8_t* u = Format::unpack(t.weights + b * Format::kBlockBytes, buffer);
    const F32x16 dw = block_scales<Format>(t, t.weights, b);
    int64_t i = 0;
    for (; i < smaller_from; i += kRows)
      add_unpacked<Format, kRows>(u, dw, t.x, b * t.m + i, acc + i * kTile);
    for (; i < t.m; i += kRows - 1)
      add_unpacked<Format, kRows - 1>(u, dw, t.x, b * t.m + i, acc + i * kTile);
  }
  for (int64_t i = 0; i < t.m; ++i)
    store_n(t.y + i * t.y_stride, load(acc + i * kTile), smaller(kTile, t.n));
}

// One tile by one panel.
template <class Format>
void panel_tile(const QuantizedTiles& t) {
  if constexpr (Format::kDirectRows < GEMTP_PANEL) {
    if (t.m > Format::kDirectRows) {
      constexpr int kGroup = Format::kGroup, kLess = kGroup > 2 ? kGroup - 1 : 2;
      const int64_t groups = (t.m + kGroup - 1) / kGroup;
      if (t.m > groups * (kGroup - 1))
        unpacked_tile<Format, kGroup>(t, groups);
      else
        unpacked_tile<Format, kLess>(t, groups);
      return;
    }
  }
  auto run = [&]<int kRows>() { direct_tiles<Format, kRows, 1>(t); };
  with_constant<Format::kDirectRows>(t.m, run);
}

// Weights of tiles that stay in the second-level cache while many panels pass over them.
constexpr int64_t kGroupBytes = 192 << 10;

template <class Format>
void matmul_quantized(const gemtp_matmul* args) {
  const gemtp_matmul& a = *args;
  QuantizedTiles t;
  t.tile_bytes = a.tile_bytes;
  t.blocks = a.k / kBlock;
  t.y_stride = a.y_stride;
  const auto set_tiles = [&](int64_t tile, int64_t count) {
    t.weights = a.weights + tile * a.tile_bytes;
    t.next = tile + 2 * count <= a.tiles + a.tiles_behind ? count * a.tile_bytes : 0;
    t.n = a.rows - tile * kTile;
  };
  const auto set_panel = [&](int64_t tile, int64_t row) {
    t.m = smaller(GEMTP_PANEL, a.m - row);
    t.x.q = a.xq.q + row * a.k;
    t.x.d = a.xq.d + row * t.blocks;
    t.x.bias = a.xq.bias + row * t.blocks;
    t.y = a.y + row * a.y_stride + tile * kTile;
  };
  int64_t tile = 0;
  // Few rows wait for memory: several tiles at once are several streams, which together come
  // faster than one.
  if (a.m <= kStreamedRows) {
    auto run = [&]<int kRows>() {
      constexpr int kTiles = kStreams / kRows;
      for (; tile + kTiles <= a.tiles; tile += kTiles) {
        set_tiles(tile, kTiles);
        set_panel(tile, 0);
        direct_tiles<Format, kRows, kTiles>(t);
      }
    };
    with_constant<kStreamedRows>(a.m, run);
  }
  const int64_t group = a.m <= GEMTP_PANEL ? 1 : 1 + kGroupBytes / a.tile_bytes;
  for (; tile < a.tiles; tile += group) {
    const int64_t end = smaller(tile + group, a.tiles);
    for (int64_t row = 0; row < a.m; row += GEMTP_PANEL)
      for (int64_t i = tile; i < end; ++i) {
        set_tiles(i, 1);
        set_panel(i, row);
        panel_tile<Format>(t);
      }
  }
}

}  // namespace
