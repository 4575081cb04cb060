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
  alignas(64) float total[kRows][kTiles][kTile] = {};  // in memory: the registers are for a chunk
  for (int64_t k = 0; k < a.k;) {
    F32x16 acc[kRows][kTiles];
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      GEMTP_UNROLL
      for (int t = 0; t < kTiles; ++t) acc[i][t] = zero();
    }
    for (const int64_t end = smaller(k + kChunk, a.k); k < end; ++k) {
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
      for (int t = 0; t < kTiles; ++t) store(total[i][t], load(total[i][t]) + acc[i][t]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int t = 0; t < kTiles; ++t) {
      const int64_t first = (tile + t) * kTile;
      store_n(a.y + (row + i) * a.y_stride + first, flush(load(total[i][t])),
              smaller(kTile, a.rows - first));
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

// ---- quantized matmuls: scales ------------------------------------------------------------------

// Layouts of a format's scales, which follow the quants of a tile at s; see kernels.h. kBytes:
// average bytes of the scales of a block of 16 rows. groups(s, b): scales of the groups of block b.

struct Half {
  static constexpr int64_t kBytes = 32;
  static constexpr bool kMin = false, kGroups = false;
  static F32x16 scale(const uint8_t* s, int64_t b) { return halves_at(s + b * 32); }
  static F32x16 halves_at(const uint8_t* p) {
    return load_f16(reinterpret_cast<const uint16_t*>(p));
  }
};

struct Bf16Scales : Half {
  static F32x16 scale(const uint8_t* s, int64_t b) {
    return load_bf16(reinterpret_cast<const uint16_t*>(s + b * 32));
  }
};

struct HalfMin {
  static constexpr int64_t kBytes = 64;
  static constexpr bool kMin = true, kGroups = false;
  static F32x16 scale(const uint8_t* s, int64_t b) { return Half::halves_at(s + b * 64); }
  static F32x16 min(const uint8_t* s, int64_t b) { return Half::halves_at(s + b * 64 + 32); }
};

struct KMin {
  static constexpr int64_t kBytes = 40;
  static constexpr bool kMin = true, kGroups = false;
  static F32x16 scale(const uint8_t* s, int64_t b) {
    const uint8_t* super = s + b / 8 * 320;
    return Half::halves_at(super) * load_u8(super + 64 + b % 8 * 32);
  }
  static F32x16 min(const uint8_t* s, int64_t b) {
    const uint8_t* super = s + b / 8 * 320;
    return Half::halves_at(super + 32) * load_u8(super + 80 + b % 8 * 32);
  }
};

struct KSigned {
  static constexpr int64_t kBytes = 20;
  static constexpr bool kMin = false, kGroups = false;
  static F32x16 scale(const uint8_t* s, int64_t b) {
    const uint8_t* super = s + b / 8 * 160;
    return Half::halves_at(super) * load_i8(super + 32 + b % 8 * 16);
  }
};

template <bool kWithMin>
struct Groups {
  static constexpr bool kMin = kWithMin, kGroups = true;
  static constexpr int64_t kHead = kMin ? 128 : 64, kBlockScales = kMin ? 64 : 32;
  static constexpr int64_t kBytes = kHead / 8 + kBlockScales;
  static const uint8_t* super(const uint8_t* s, int64_t b) { return s + b / 8 * 8 * kBytes; }
  static F32x16 scale(const uint8_t* s, int64_t b) {
    return load(reinterpret_cast<const float*>(super(s, b)));
  }
  static F32x16 min(const uint8_t* s, int64_t b) {
    return load(reinterpret_cast<const float*>(super(s, b) + 64));
  }
  static const uint8_t* groups(const uint8_t* s, int64_t b) {
    return super(s, b) + kHead + b % 8 * kBlockScales;
  }
};

// ---- quantized matmuls --------------------------------------------------------------------------

// A block of 16 output rows.
struct PackedBlock {
  const uint8_t* quants;
  const uint8_t* groups; /* scales of its groups, if the format has them */
  const int8_t* table;   /* values of its nibbles, if the format has a table */
};

// A block of an activation row, followed by the same block of the panel's next rows.
struct ActivationBlock {
  const int8_t* q;     /* 32 of each row */
  const int32_t* bias; /* of each row, as in gemtp_q8_rows */
  const int32_t* pairs;
};

// One weight tile, or a few consecutive ones, against one panel of activation rows.
struct QuantizedTiles {
  const uint8_t* weights;
  int64_t tile_bytes;
  int64_t next; /* bytes to the tile that takes this tile's place next; 0 at the end */
  int64_t blocks;
  const int8_t* table;
  gemtp_q8_rows x; /* the panel */
  int64_t m;       /* its rows */
  float* y;        /* y[first row of the panel][first output row of the first tile] */
  int64_t y_stride;
  int64_t n; /* output rows from the first tile on */

  // Returns the panel's blocks from index `at` on.
  GEMTP_INLINE ActivationBlock activations(int64_t at) const {
    return {x.q + at * kBlock, x.bias + at, x.pairs + 2 * at};
  }
};

// Prefetches the weights kBytesAhead ahead of block b, in this tile or the next.
template <class Format>
inline void prefetch_weights(const QuantizedTiles& t, const uint8_t* tile, int64_t b) {
  constexpr int64_t kQuants = Format::kBlockBytes, kScales = Format::Scales::kBytes;
  b += kBytesAhead / kQuants;
  if (b >= t.blocks) {
    b -= t.blocks;
    tile += t.next;
  }
  GEMTP_UNROLL
  for (int i = 0; i < kQuants; i += 64) prefetch(tile + b * kQuants + i);
  prefetch(tile + t.blocks * kQuants + b * kScales);
}

// Block b of a tile: its quants and their scales.
template <class Format>
struct TileBlock {
  using Scales = typename Format::Scales;
  PackedBlock packed;
  F32x16 scale, min; /* set by load_scales(); min: if the format has minima */
  F32x16 group_min[2];
  const uint8_t* scales; /* of the tile */
  int64_t b;

  GEMTP_INLINE TileBlock(const QuantizedTiles& t, const uint8_t* tile, int64_t block)
      : packed{tile + block * Format::kBlockBytes, nullptr, t.table},
        scales(tile + t.blocks * Format::kBlockBytes),
        b(block) {
    if constexpr (Scales::kGroups) packed.groups = Scales::groups(scales, b);
  }
  GEMTP_INLINE void load_scales() {
    scale = Scales::scale(scales, b);
    if constexpr (Scales::kMin) min = Scales::min(scales, b);
    if constexpr (Scales::kMin && Scales::kGroups) {
      group_min[0] = load_i8(packed.groups + 32);
      group_min[1] = load_i8(packed.groups + 48);
    }
  }

  // Returns acc plus the block's contribution to a row. dot: the integer sum; at: index of the
  // row's block among all blocks of the panel.
  GEMTP_INLINE F32x16 add(F32x16 acc, F32x16 dot, const gemtp_q8_rows& x, int64_t at) const {
    acc = fma(dot, scale * set1(x.d[at]), acc);
    if constexpr (Scales::kMin && Scales::kGroups) {
      const F32x16 sum = fma(group_min[1], set1(gemtp_sum_of_pairs(x.pairs[2 * at + 1])),
                             group_min[0] * set1(gemtp_sum_of_pairs(x.pairs[2 * at])));
      acc = fma(sum, min * set1(x.d[at]), acc);
    } else if constexpr (Scales::kMin) {
      acc = fma(min, set1(x.sum[at]), acc);
    }
    return acc;
  }
};

// Multiplies all kRows rows of the panel, with sums in registers. This and the functions below are
// not inlined, so that one such loop at a time has the registers.
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
      prefetch_weights<Format>(t, tile, b);
      TileBlock<Format> block(t, tile, b);
      F32x16 dot[kRows];
      Format::template dots<kRows>(block.packed, t.activations(b * kRows), dot);
      block.load_scales();  // not earlier, because the dot products need the registers
      GEMTP_UNROLL
      for (int i = 0; i < kRows; ++i) acc[j][i] = block.add(acc[j][i], dot[i], t.x, b * kRows + i);
    }
  }
  GEMTP_UNROLL
  for (int j = 0; j < kTiles; ++j) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i)
      store_n(t.y + i * t.y_stride + j * kTile, flush(acc[j][i]), smaller(kTile, t.n - j * kTile));
  }
}

// Multiplies one block of 16 output rows, unpacked at u, by kRows rows of the panel, from block
// `at` of all its blocks on. Their sums, [kRows][16], are in memory.
template <class Format, int kRows>
GEMTP_INLINE void add_unpacked(const QuantizedTiles& t, const uint8_t* u,
                               const TileBlock<Format>& block, int64_t at, float* acc) {
  F32x16 dot[kRows];
  Format::template unpacked_dots<kRows>(u, block.packed, t.activations(at), dot);
  GEMTP_UNROLL
  for (int i = 0; i < kRows; ++i)
    store(acc + i * kTile, block.add(load(acc + i * kTile), dot[i], t.x, at + i));
}

// A panel whose rows are processed in groups of kRows, followed by groups of kRows - 1. Each block
// is unpacked once for all of them.
template <class Format, int kRows>
GEMTP_NOINLINE void unpacked_tile(const QuantizedTiles& t, int64_t groups) {
  alignas(64) uint8_t buffer[Format::kUnpackedBytes];
  alignas(64) float acc[GEMTP_PANEL * kTile];
  const int64_t smaller_from = t.m - (kRows * groups - t.m) * (kRows - 1);
  for (int64_t i = 0; i < t.m; ++i) store(acc + i * kTile, zero());
  for (int64_t b = 0; b < t.blocks; ++b) {
    prefetch_weights<Format>(t, t.weights, b);
    TileBlock<Format> block(t, t.weights, b);
    const uint8_t* u = Format::unpack(block.packed, buffer);
    block.load_scales();
    int64_t i = 0;
    for (; i < smaller_from; i += kRows)
      add_unpacked<Format, kRows>(t, u, block, b * t.m + i, acc + i * kTile);
    for (; i < t.m; i += kRows - 1)
      add_unpacked<Format, kRows - 1>(t, u, block, b * t.m + i, acc + i * kTile);
  }
  for (int64_t i = 0; i < t.m; ++i)
    store_n(t.y + i * t.y_stride, flush(load(acc + i * kTile)), smaller(kTile, t.n));
}

// Multiplies one tile by one panel.
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

// Bytes of the tiles that stay in the second-level cache while many panels pass over them.
constexpr int64_t kGroupBytes = 192 << 10;

template <class Format>
void matmul_quantized(const gemtp_matmul* args) {
  const gemtp_matmul& a = *args;
  QuantizedTiles t;
  t.tile_bytes = a.tile_bytes;
  t.table = a.table;
  t.blocks = a.k / kBlock;
  t.y_stride = a.y_stride;
  const auto set_tiles = [&](int64_t tile, int64_t count) {
    t.weights = a.weights + tile * a.tile_bytes;
    t.next = tile + 2 * count <= a.tiles + a.tiles_behind ? count * a.tile_bytes : 0;
    t.n = a.rows - tile * kTile;
  };
  const auto set_panel = [&](int64_t tile, int64_t row) {
    t.m = smaller(GEMTP_PANEL, a.m - row);
    t.x = gemtp_q8_next(a.xq, row * t.blocks);
    t.y = a.y + row * a.y_stride + tile * kTile;
  };
  int64_t tile = 0;
  // With few rows the loop waits for memory; several tiles at once are several streams, which are
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
