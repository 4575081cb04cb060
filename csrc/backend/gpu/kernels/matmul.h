// Products of rows of activations with matrices in tiles. A warp's work is a strip of 32 rows of a
// matrix, two tiles, times the activation rows of a panel. The result of a row is one chain of
// fused multiply-adds over the blocks of K (quantized formats), or one for each 512 of K, added in
// order (floats): how the work is shared changes when a term is made, never the chain.
#pragma once

namespace gemtp {
namespace gpu {

// ---- who computes what ---------------------------------------------------------------------------

/// What a block, or a warp, computes: a strip of a matrix times the rows of a panel.
struct Strip {
  int matrix;                 // of the arguments
  int64_t first, second;      // places of its tiles; where there is one tile, both are its
  int row, rows;              // of the matrix: the strip's first, and how many there are
  int x_row, y_row, columns;  // activation rows: the first, that of its results, how many
};

GPU_INLINE Strip find_strip(GPU_CONSTANT const MatmulArguments& a, int strip, int panel,
                            int panel_rows) {
  Strip s;
  s.matrix = 0;
  s.x_row = s.y_row = 0;
  s.first = 0;
  int rows = a.m;
  if (a.list) {
    const int strips = (a.matrix[0].rows + 31) / 32;
    const MatrixRows entry = a.list[strip / strips];
    strip = strip % strips;
    s.first = entry.matrix * a.matrix_bytes;
    s.x_row = entry.first * a.x_step;
    s.y_row = entry.first;
    rows = entry.count;
  } else {
    while (strip >= (a.matrix[s.matrix].rows + 31) / 32) {
      strip -= (a.matrix[s.matrix].rows + 31) / 32;
      ++s.matrix;
    }
    s.x_row = a.first_row[s.matrix];
    rows -= s.x_row;
  }
  const int skip = panel * panel_rows, left = a.matrix[s.matrix].rows - strip * 32;
  s.x_row += skip;
  s.y_row += skip;
  s.columns = rows - skip < panel_rows ? rows - skip : panel_rows;
  s.row = strip * 32;
  s.rows = left < 32 ? left : 32;
  s.first += 2 * strip * a.matrix[s.matrix].tile_bytes;
  s.second = s.first + (left > 16 ? a.matrix[s.matrix].tile_bytes : 0);
  return s;
}

/// The two tiles of a strip.
struct Tiles {
  Bytes first, second;
};
GPU_INLINE Tiles tiles_of(GPU_CONSTANT const MatmulArguments& a, Strip s, int matrix) {
  return Tiles{a.matrix[matrix].tiles + s.first, a.matrix[matrix].tiles + s.second};
}

enum Activation { kPlain, kGated, kGatedByFactor };

/// The end of a sum, times the matrix' scale.
GPU_INLINE float scaled(float sum, float scale) { return flushed(flushed(sum) * scale); }

/// Results of a strip lie in `results`, [matrices][kRows][32]: a warp takes a column, a lane a row.
template <int kActivation, int kRows, int kSize>
GPU_INLINE void finish(GPU_CONSTANT const MatmulArguments& a, Strip s,
                       GPU_SHARED SharedArray<float, kSize>& results, Place at, int warps) {
  const int width = a.matrix[s.matrix].rows;
  for (int i = at.warp; i < s.columns; i += warps) {
    const int64_t place = int64_t(s.y_row + i) * width + s.row + at.lane;
    const bool exists = at.lane < s.rows;
    float y = scaled(results[i * 32 + at.lane], a.matrix[s.matrix].scale);
    if (kActivation == kGated) {
      const int up = (kActivation == kGated ? kRows + i : 0) * 32 + at.lane;
      y = flushed(gelu(y) * scaled(results[up], a.matrix[1].scale));
    } else if (kActivation == kGatedByFactor) {
      y = exists ? flushed(gelu(y) * a.factor[place]) : 0.0f;
    }
    if (exists && a.y[s.matrix]) a.y[s.matrix][place] = y;
    if (kActivation != kPlain && a.quantized.quants)
      quantize_block(y, at.lane, a.quantized, place / 32);
  }
}

// ---- dots of a block of K ------------------------------------------------------------------------

/// The quantized activation rows of a panel.
struct Columns {
  Global<const Quant> quants;
  Global<const QuantizedBlock> blocks;
  int count;  // of blocks in a row
};
GPU_INLINE Columns columns_of(GPU_CONSTANT const MatmulArguments& a, Strip s) {
  const int64_t first = int64_t(s.x_row) * (a.k / 32);
  return Columns{as_global<const Quant>(a.x.quants) + first * 32, a.x.blocks + first, a.k / 32};
}

/// Sums of the quants of both halves of a block.
GPU_INLINE int first_sum(QuantizedBlock x) { return int16_t(x.halves & 0xffff); }
GPU_INLINE int second_sum(QuantizedBlock x) { return x.halves >> 16; }

/// Gives the terms of a weight row and an activation row to a sink, which puts them into a chain:
/// acc = fused(dot, scale, acc), then, in formats with minima, the same of the minimum.
template <class Scales, class Sink>
GPU_INLINE void give_terms(int term, float dot, BlockScale w, QuantizedBlock x,
                           GPU_LOCAL Sink& sink) {
  sink.add(term, 0, dot, w.scale * x.d);
  if (Scales::kMin && Scales::kGroups) {
    const int min = w.min_of_group[0] * first_sum(x) + w.min_of_group[1] * second_sum(x);
    sink.add(term, 1, float(min), w.min * x.d);
  } else if (Scales::kMin) {
    sink.add(term, 1, w.min, x.sum);
  }
}

/// A lane has a row of the strip, and all activation rows.
template <class Format, int kPanelRows>
struct LaneDots {
  using Quants = typename Format::Quants;
  using Scales = typename Format::Scales;
  GPU_INT kRows = kPanelRows, kTerms = kPanelRows, kOffset = Quants::kOffset;

  static GPU_INLINE int row_of(int, int lane) { return lane; }
  static GPU_INLINE int column_of(int term, int) { return term; }

  template <class Sink>
  static GPU_INLINE void make(Tiles tiles, Words4 table, int b, Columns x, int lane,
                              GPU_LOCAL Sink& sink) {
    const Bytes tile = lane < 16 ? tiles.first : tiles.second;
    const Bytes block = tile + int64_t(b) * Quants::kBytes;
    const BlockScale scale = Scales::at(tile + int64_t(x.count) * Quants::kBytes, b, lane % 16);
    Words2 codes[4];
    GPU_UNROLL
    for (int c = 0; c < 4; ++c) codes[c] = Quants::codes(block, lane % 16, c, table);
    GPU_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const int64_t at = int64_t(i) * x.count + b;
      const QuantizedBlock xb = x.blocks[at];
      const Quads q = load_quads(x.quants + at * 32);
      if (Scales::kGroups) {
        Dot first = first_dot<kOffset>(first_sum(xb)), second = first_dot<kOffset>(second_sum(xb));
        GPU_UNROLL
        for (int c = 0; c < 4; ++c) {
          first = dot4<kOffset>(codes[c].x, q.of[2 * c], first);
          second = dot4<kOffset>(codes[c].y, q.of[2 * c + 1], second);
        }
        const Dot dot = Dot(scale.of_group[0]) * first + Dot(scale.of_group[1]) * second;
        give_terms<Scales>(i, float(dot), scale, xb, sink);
      } else {
        Dot dot = kDotBase + first_dot<kOffset>(xb.total);
        GPU_UNROLL
        for (int c = 0; c < 4; ++c) {
          dot = dot4<kOffset>(codes[c].x, q.of[2 * c], dot);
          dot = dot4<kOffset>(codes[c].y, q.of[2 * c + 1], dot);
        }
        give_terms<Scales>(i, float_of_dot(dot), scale, xb, sink);
      }
    }
  }
};

#ifdef GPU_TENSOR
/// A warp's matrix instructions multiply a tile with 8 activation rows. Lane 4 g + c has rows g and
/// g + 8 of each tile, and activation rows 2 c and 2 c + 1 of each 8.
template <class Format, int kPanelRows>
struct TensorDots {
  using Quants = typename Format::Quants;
  using Scales = typename Format::Scales;
  GPU_INT kRows = kPanelRows, kTerms = kPanelRows, kOfTile = kTerms / 2, kOffset = Quants::kOffset;

  static GPU_INLINE int row_of(int term, int lane) {
    return term / kOfTile * 16 + term % 4 / 2 * 8 + lane / 4;
  }
  static GPU_INLINE int column_of(int term, int lane) {
    return term % kOfTile / 4 * 8 + lane % 4 * 2 + term % 2;
  }

  template <class Sink>
  static GPU_INLINE void make(Tiles tiles, Words4 table, int b, Columns x, int lane,
                              GPU_LOCAL Sink& sink) {
    const int g = lane / 4, c = lane % 4;
    Words2 codes[2][2];  // of rows g and g + 8 of each tile
    BlockScale scale[2][2];
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) {
      const Bytes tile = i < 2 ? tiles.first : tiles.second;
      const int r = g + i % 2 * 8;
      codes[i / 2][i % 2] = Quants::codes(tile + int64_t(b) * Quants::kBytes, r, c, table);
      scale[i / 2][i % 2] = Scales::at(tile + int64_t(x.count) * Quants::kBytes, b, r);
    }
    GPU_UNROLL
    for (int n = 0; n < kRows / 8; ++n) {
      const int64_t own = int64_t(8 * n + g) * x.count + b;
      const Words2 q = as_global<const Words2>(x.quants + own * 32)[c];
      QuantizedBlock xb[2];
      GPU_UNROLL
      for (int i = 0; i < 2; ++i) xb[i] = x.blocks[int64_t(8 * n + 2 * c + i) * x.count + b];
      GPU_UNROLL
      for (int t = 0; t < 2; ++t) {
        float dots[4];
        multiply(codes[t], q, scale[t], xb, dots);
        GPU_UNROLL
        for (int i = 0; i < 4; ++i)
          give_terms<Scales>(t * kOfTile + n * 4 + i, dots[i], scale[t][i / 2], xb[i % 2], sink);
      }
    }
  }

  static GPU_INLINE void multiply(GPU_LOCAL const Words2 (&codes)[2], Words2 q,
                                  GPU_LOCAL const BlockScale (&scale)[2],
                                  GPU_LOCAL const QuantizedBlock (&x)[2],
                                  GPU_LOCAL float (&dots)[4]) {
    int32_t first[4], second[4];
    if (Scales::kGroups) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) {
        first[i] = first_dot<kOffset>(first_sum(x[i % 2]));
        second[i] = first_dot<kOffset>(second_sum(x[i % 2]));
      }
      multiply16(first, codes[0].x, codes[1].x, q.x);
      multiply16(second, codes[0].y, codes[1].y, q.y);
      GPU_UNROLL
      for (int i = 0; i < 4; ++i)
        dots[i] = float(scale[i / 2].of_group[0] * first[i] + scale[i / 2].of_group[1] * second[i]);
    } else {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) first[i] = kDotBase + first_dot<kOffset>(x[i % 2].total);
      multiply32(first, codes[0], codes[1], q);
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) dots[i] = float_of_dot(first[i]);
    }
  }
};
template <class Format, int kRows>
using WideDots = TensorDots<Format, kRows>;
#else
template <class Format, int kRows>
using WideDots = LaneDots<Format, kRows>;
#endif

// ---- quantized formats ---------------------------------------------------------------------------

struct Term {
  float dot, scale;
};

/// Terms of a block of K go to the memory that the warps share.
template <int kSize, int kTerms>
struct SharedTerms {
  GPU_SHARED SharedArray<Term, kSize>& terms;
  int first;  // place of this lane's first term
  GPU_INLINE void add(int term, int kind, float dot, float scale) {
    terms[first + (kind * kTerms + term) * 32] = Term{dot, scale};
  }
};

/// Few activation rows. The warps of a block share a strip: they make the terms of the blocks of a
/// window, then each adds those of its chains in the order of the blocks.
template <class Format, class Dots, int kActivation>
struct SplitMatmul {
  using Arguments = MatmulArguments;
  GPU_INT kMatrices = kActivation == kGated ? 2 : 1;
  GPU_INT kTerms = kMatrices * Dots::kTerms;              // of a lane and a block of K
  GPU_INT kKinds = Format::Scales::kMin ? 2 : 1;          // products; minima
  GPU_INT kWindow = kTerms <= 2 ? 32 : 64 / kTerms;       // blocks
  GPU_INT kWarps = kWindow < 8 ? kWindow : 8;
  GPU_INT kThreads = kWarps * 32;
  GPU_INT kChains = (kTerms + kWarps - 1) / kWarps;       // of a lane
  GPU_INT kSize = kWindow * kKinds * kTerms * 32;
  struct Memory {
    SharedArray<Term, kSize> terms;  // [window][kinds][terms][lanes]
    SharedArray<float, kMatrices * Dots::kRows * 32> results;
  };

  static GPU_INLINE void run(GPU_CONSTANT const Arguments& a, GPU_SHARED Memory& memory, Place at) {
    const Strip s = find_strip(a, at.block, at.row, Dots::kRows);
    if (s.columns <= 0) return;
    const Columns x = columns_of(a, s);
    float acc[kChains];
    for (int i = 0; i < kChains; ++i) acc[i] = 0;
    for (int first = 0; first < x.count; first += kWindow) {
      const int left = x.count - first, n = left < kWindow ? left : kWindow;
      make_window(a, s, x, first, n, memory, at);
      barrier();
      add_window(n, memory, at, acc);
      barrier();
    }
    GPU_UNROLL
    for (int i = 0; i < kChains; ++i) {
      const int term = at.warp + i * kWarps, of = term % Dots::kTerms;
      if (term >= kTerms) break;
      const int column = term / Dots::kTerms * Dots::kRows + Dots::column_of(of, at.lane);
      memory.results[column * 32 + Dots::row_of(of, at.lane)] = acc[i];
    }
    barrier();
    finish<kActivation, Dots::kRows>(a, s, memory.results, at, kWarps);
  }

  static GPU_INLINE void make_window(GPU_CONSTANT const Arguments& a, Strip s, Columns x, int first,
                                     int n, GPU_SHARED Memory& memory, Place at) {
    GPU_UNROLL
    for (int i = 0; i < kWindow; i += kWarps) {
      if (i + at.warp >= n) break;
      const int place = (i + at.warp) * (kKinds * kTerms * 32) + at.lane, b = first + i + at.warp;
      GPU_UNROLL
      for (int j = 0; j < kMatrices; ++j) {
        SharedTerms<kSize, kTerms> sink = {memory.terms, place + j * Dots::kTerms * 32};
        const int matrix = kMatrices == 2 ? j : s.matrix;
        Dots::make(tiles_of(a, s, matrix), a.matrix[matrix].table, b, x, at.lane, sink);
      }
    }
  }

  static GPU_INLINE void add_window(int n, GPU_SHARED Memory& memory, Place at,
                                    GPU_LOCAL float (&acc)[kChains]) {
    GPU_UNROLL
    for (int i = 0; i < kChains; ++i) {
      const int term = at.warp + i * kWarps;
      if (term >= kTerms) break;
      for (int b = 0; b < n; ++b) {
        GPU_UNROLL
        for (int kind = 0; kind < kKinds; ++kind) {
          const Term t = memory.terms[((b * kKinds + kind) * kTerms + term) * 32 + at.lane];
          acc[i] = fused(t.dot, t.scale, acc[i]);
        }
      }
    }
  }
};

/// Chains in the registers of the lane that makes their terms.
template <int kTerms>
struct OwnChains {
  float acc[kTerms];
  GPU_INLINE void add(int term, int, float dot, float scale) {
    acc[term] = fused(dot, scale, acc[term]);
  }
};

/// Many activation rows: a warp has a strip of its own, and walks along K alone.
template <class Format, class Dots>
struct ManyRowsMatmul {
  using Arguments = MatmulArguments;
  GPU_INT kWarps = 4, kThreads = kWarps * 32;
  struct Memory {
    SharedArray<float, 1> none;
  };

  static GPU_INLINE void run(GPU_CONSTANT const Arguments& a, GPU_SHARED Memory&, Place at) {
    const int strip = at.block * kWarps + at.warp;
    if (strip >= a.strips) return;
    const Strip s = find_strip(a, strip, at.row, Dots::kRows);
    if (s.columns <= 0) return;
    const Columns x = columns_of(a, s);
    const Tiles tiles = tiles_of(a, s, s.matrix);
    const Words4 table = a.matrix[s.matrix].table;
    OwnChains<Dots::kTerms> chains;
    GPU_UNROLL
    for (int t = 0; t < Dots::kTerms; ++t) chains.acc[t] = 0;
    for (int b = 0; b < x.count; ++b) Dots::make(tiles, table, b, x, at.lane, chains);
    const int width = a.matrix[s.matrix].rows;
    GPU_UNROLL
    for (int t = 0; t < Dots::kTerms; ++t) {
      const int row = Dots::row_of(t, at.lane), column = Dots::column_of(t, at.lane);
      if (row < s.rows && column < s.columns)
        a.y[s.matrix][int64_t(s.y_row + column) * width + s.row + row] =
            scaled(chains.acc[t], a.matrix[s.matrix].scale);
    }
  }
};

// ---- float formats -------------------------------------------------------------------------------

struct F32 {
  static GPU_INLINE float at(Bytes tile, int64_t i) { return as_global<const float>(tile)[i]; }
};
struct F16 {
  static GPU_INLINE float at(Bytes tile, int64_t i) {
    return half_to_float(as_global<const uint16_t>(tile)[i]);
  }
};
struct BF16 {
  static GPU_INLINE float at(Bytes tile, int64_t i) {
    return bf16_to_float(as_global<const uint16_t>(tile)[i]);
  }
};

/// A warp takes 512 of K at a time, a lane a row of the strip; each then adds the sums of those
/// parts, in order, for its share of the results.
template <class Element, int kRows, int kActivation>
struct FloatMatmul {
  using Arguments = MatmulArguments;
  GPU_INT kMatrices = kActivation == kGated ? 2 : 1, kTerms = kMatrices * kRows;
  GPU_INT kWarps = kTerms > 16 ? 4 : 8, kThreads = kWarps * 32;
  GPU_INT kChains = (kTerms + kWarps - 1) / kWarps;
  struct Memory {
    SharedArray<float, kWarps * kTerms * 32> parts;  // [warps][terms][lanes]
    SharedArray<float, kTerms * 32> results;
  };

  static GPU_INLINE void run(GPU_CONSTANT const Arguments& a, GPU_SHARED Memory& memory, Place at) {
    const Strip s = find_strip(a, at.block, at.row, kRows);
    if (s.columns <= 0) return;
    const Global<const float> x = a.x_float + int64_t(s.x_row) * a.k;
    float acc[kChains];
    for (int i = 0; i < kChains; ++i) acc[i] = 0;
    const int parts = (a.k + 511) / 512;
    for (int first = 0; first < parts; first += kWarps) {
      if (first + at.warp < parts) {
        GPU_UNROLL
        for (int j = 0; j < kMatrices; ++j)
          sum_part(a, s, kMatrices == 2 ? j : s.matrix, x, first + at.warp, memory,
                   (at.warp * kTerms + j * kRows) * 32 + at.lane, at.lane);
      }
      barrier();
      GPU_UNROLL
      for (int i = 0; i < kChains; ++i) {
        const int term = at.warp + i * kWarps;
        if (term >= kTerms) break;
        for (int w = 0; w < kWarps && first + w < parts; ++w)
          acc[i] = acc[i] + memory.parts[(w * kTerms + term) * 32 + at.lane];
      }
      barrier();
    }
    GPU_UNROLL
    for (int i = 0; i < kChains; ++i) {
      const int term = at.warp + i * kWarps;
      if (term < kTerms) memory.results[term * 32 + at.lane] = acc[i];
    }
    barrier();
    finish<kActivation, kRows>(a, s, memory.results, at, kWarps);
  }

  static GPU_INLINE void sum_part(GPU_CONSTANT const Arguments& a, Strip s, int matrix,
                                  Global<const float> x, int part, GPU_SHARED Memory& memory,
                                  int place, int lane) {
    const Tiles tiles = tiles_of(a, s, matrix);
    const Bytes tile = lane < 16 ? tiles.first : tiles.second;
    const int begin = part * 512, end = begin + 512 < a.k ? begin + 512 : a.k;
    float sum[kRows];
    GPU_UNROLL
    for (int i = 0; i < kRows; ++i) sum[i] = 0;
    for (int k = begin; k < end; ++k) {
      const float w = Element::at(tile, int64_t(k) * 16 + lane % 16);
      GPU_UNROLL
      for (int i = 0; i < kRows; ++i) sum[i] = fused(w, x[int64_t(i) * a.k + k], sum[i]);
    }
    GPU_UNROLL
    for (int i = 0; i < kRows; ++i) memory.parts[place + i * 32] = sum[i];
  }
};

}  // namespace gpu
}  // namespace gemtp
