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

}  // namespace
