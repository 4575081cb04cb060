// Products of rows of activations with matrices in tiles. A warp's work is a strip of 32 rows of a
// matrix, two tiles, times the activation rows of a panel. The result of a row is one chain of
// fused multiply-adds over the blocks of K (quantized formats), or one for each 512 of K, added in
// order (floats): how the work is shared changes when a term is made, never the chain.
#pragma once

#include "backend/gpu/kernels/arguments.h"
#include "backend/gpu/kernels/formats.h"
#include "backend/gpu/kernels/math.h"
#include "backend/gpu/kernels/quantize.h"

namespace gemtp {
namespace gpu {

// ---- who computes what --------------------------------------------------------------------------

/// What a block, or a warp, computes: a strip of a matrix times the rows of a panel.
struct Strip {
  int matrix;                 // of the arguments
  int member;                 // of the set, if there is a list
  int64_t first, second;      // places of its tiles; where there is one tile, both are its
  int row, rows;              // of the matrix: the strip's first, and how many there are
  int x_row, y_row, columns;  // activation rows: the first, that of its results, how many
};

GPU_INLINE Strip find_strip(GPU_CONSTANT MatmulArguments& a, int strip, int panel, int panel_rows) {
  Strip s;
  s.matrix = s.member = 0;
  s.x_row = s.y_row = 0;
  int rows = a.m;
  if (a.list) {
    const int strips = (a.matrix[0].rows + 31) / 32;
    const MatrixRows entry = a.list[strip / strips];
    strip = strip % strips;
    s.member = entry.matrix;
    s.x_row = entry.first * a.x_step;
    s.y_row = entry.first;
    rows = entry.count;
  } else {
    while (strip >= (a.matrix[s.matrix].rows + 31) / 32) {
      strip -= (a.matrix[s.matrix].rows + 31) / 32;
      ++s.matrix;
    }
  }
  const int skip = panel * panel_rows, left = a.matrix[s.matrix].rows - strip * 32;
  s.x_row += skip;
  s.y_row += skip;
  s.columns = rows - skip < panel_rows ? rows - skip : panel_rows;
  s.row = strip * 32;
  s.rows = left < 32 ? left : 32;
  s.first = 2 * strip * a.matrix[s.matrix].tile_bytes;
  s.second = s.first + (left > 16 ? a.matrix[s.matrix].tile_bytes : 0);
  return s;
}

GPU_INLINE Bytes tiles_of(GPU_CONSTANT MatmulArguments& a, Strip s, int matrix) {
  return a.list ? a.set[matrix][s.member].tiles : a.matrix[matrix].tiles;
}
GPU_INLINE float scale_of(GPU_CONSTANT MatmulArguments& a, Strip s, int matrix) {
  return a.list ? a.set[matrix][s.member].scale : a.matrix[matrix].scale;
}

enum Activation { kPlain, kGated, kGatedByFactor };

/// The end of a sum, times the matrix' scale.
GPU_INLINE float scaled(float sum, float scale) { return flushed(flushed(sum) * scale); }

struct Term {
  float dot, scale;
};

/// Results of a strip are the first numbers of `results`, [matrices][kRows][32]: a warp takes a
/// column, a lane a row.
template <int kActivation, int kRows, int kSize>
GPU_INLINE void finish(GPU_CONSTANT MatmulArguments& a, Strip s,
                       GPU_SHARED SharedArray<Term, kSize>& results, Place at, int warps) {
  const int width = a.matrix[s.matrix].rows;
  for (int i = at.warp; i < s.columns; i += warps) {
    const int64_t place = int64_t(s.y_row + i) * width + s.row + at.lane;
    const bool exists = at.lane < s.rows;
    const Term sum = results[i * 32 + at.lane];
    float y = scaled(sum.dot, scale_of(a, s, s.matrix));
    if (kActivation == kGated) {
      const Term up = results[(kRows + i) * 32 + at.lane];
      y = flushed(gelu(y) * scaled(up.dot, scale_of(a, s, 1)));
    } else if (kActivation == kGatedByFactor) {
      const int64_t other = (s.y_row + i) * a.factor_stride + s.row + at.lane;
      y = exists ? flushed(gelu(y) * a.factor[other]) : 0.0f;
    }
    if (exists && a.y[s.matrix]) a.y[s.matrix][place] = y;
    if (kActivation != kPlain && a.quantized) quantize_block(y, at.lane, a.quantized, place / 32);
  }
}

// ---- dots of a block of K -----------------------------------------------------------------------

/// Sums of the quants of both halves of a block.
GPU_INLINE int first_sum(BlockHead x) { return int16_t(x.halves & 0xffff); }
GPU_INLINE int second_sum(BlockHead x) { return x.halves >> 16; }

/// Gives the terms of a weight row and an activation row to a sink, which puts them into a chain:
/// acc = fused(dot, scale, acc), then, in formats with minima, the same of the minimum.
template <class Scales, class Sink>
GPU_INLINE void give_terms(int term, float dot, BlockScale w, BlockHead x, GPU_LOCAL Sink& sink) {
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
  GPU_INT kKinds = Scales::kMin ? 2 : 1;  // of terms: products; minima

  static GPU_INLINE int count(GPU_CONSTANT MatmulArguments& a) { return a.k / 32; }
  static GPU_INLINE int row_of(int, int lane) { return lane; }
  static GPU_INLINE int column_of(int term, int) { return term; }

  /// Where the lane's numbers begin.
  struct Lane {
    int r, count;
    Words row;
    Bytes scales, x;
    Words4 table;
  };
  static GPU_INLINE Lane begin(GPU_CONSTANT MatmulArguments& a, Strip s, int matrix, int lane) {
    const Bytes tile = tiles_of(a, s, matrix) + (lane < 16 ? s.first : s.second);
    Lane own;
    own.r = lane % 16;
    own.count = count(a);
    own.row = as_global<const uint32_t>(tile) + own.r;
    own.scales = tile + int64_t(own.count) * Quants::kBytes;
    own.x = a.x + int64_t(s.x_row) * own.count * kBlockBytes;
    own.table = a.matrix[matrix].table;
    return own;
  }

  template <class Sink>
  static GPU_INLINE void make(Lane own, int b, GPU_LOCAL Sink& sink) {
    const Words row = own.row + b * (Quants::kBytes / 4);
    const BlockScale scale = Scales::at(own.scales, b, own.r);
    Words2 codes[4];
    GPU_UNROLL
    for (int c = 0; c < 4; ++c) codes[c] = Quants::codes(row, row + 16 * c, c, own.table);
    GPU_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const Bytes block = own.x + int64_t(i * own.count + b) * kBlockBytes;
      const BlockHead x = as_global<const BlockHead>(block)[0];
      const Quads q = load_quads(as_global<const Quant>(block + kHeadBytes));
      if (Scales::kGroups) {
        Dot first = first_dot<kOffset>(first_sum(x)), second = first_dot<kOffset>(second_sum(x));
        GPU_UNROLL
        for (int c = 0; c < 4; ++c) {
          first = dot4<kOffset>(codes[c].x, q.of[2 * c], first);
          second = dot4<kOffset>(codes[c].y, q.of[2 * c + 1], second);
        }
        const Dot dot = Dot(scale.of_group[0]) * first + Dot(scale.of_group[1]) * second;
        give_terms<Scales>(i, float(dot), scale, x, sink);
      } else {
        Dot dot = kDotBase + first_dot<kOffset>(x.total);
        GPU_UNROLL
        for (int c = 0; c < 4; ++c) {
          dot = dot4<kOffset>(codes[c].x, q.of[2 * c], dot);
          dot = dot4<kOffset>(codes[c].y, q.of[2 * c + 1], dot);
        }
        give_terms<Scales>(i, float_of_dot(dot), scale, x, sink);
      }
    }
  }
};

/// A warp's matrix instructions multiply a tile with 8 activation rows. A lane of row g and pair c,
/// which gpu.h knows, has rows g and g + 8 of each tile, and activation rows 2 c and 2 c + 1 of
/// each 8.
template <class Format, int kPanelRows>
struct TensorDots {
  using Quants = typename Format::Quants;
  using Scales = typename Format::Scales;
  GPU_INT kRows = kPanelRows, kTerms = kPanelRows, kOfTile = kTerms / 2, kOffset = Quants::kOffset;
  GPU_INT kKinds = Scales::kMin ? 2 : 1;  // of terms: products; minima

  static GPU_INLINE int count(GPU_CONSTANT MatmulArguments& a) { return a.k / 32; }
  static GPU_INLINE int row_of(int term, int lane) {
    return term / kOfTile * 16 + term % 4 / 2 * 8 + fragment_row(lane);
  }
  static GPU_INLINE int column_of(int term, int lane) {
    return term % kOfTile / 4 * 8 + fragment_pair(lane) * 2 + term % 2;
  }

  /// Where the lane's numbers begin.
  struct Lane {
    int g, c, count;
    Words row[2], group[2];  // of row g of both tiles
    Bytes scales[2];
    Words4 table;
    Bytes quants;  // the first of the lane's
    Bytes heads;   // of activation row 2 c
  };
  static GPU_INLINE Lane begin(GPU_CONSTANT MatmulArguments& a, Strip s, int matrix, int lane) {
    Lane own;
    own.g = fragment_row(lane);
    own.c = fragment_pair(lane);
    own.count = count(a);
    GPU_UNROLL
    for (int t = 0; t < 2; ++t) {
      const Bytes tile = tiles_of(a, s, matrix) + (t ? s.second : s.first);
      own.row[t] = as_global<const uint32_t>(tile) + own.g;
      own.group[t] = own.row[t] + 16 * own.c;
      own.scales[t] = tile + int64_t(own.count) * Quants::kBytes;
    }
    own.table = a.matrix[matrix].table;
    const Bytes x = a.x + int64_t(s.x_row) * own.count * kBlockBytes;
    own.quants = x + (kHeadBytes + fragment_place(own.g, own.c, int64_t(own.count) * kBlockBytes));
    own.heads = x + int64_t(2 * own.c) * own.count * kBlockBytes;
    return own;
  }

  template <class Sink>
  static GPU_INLINE void make(Lane own, int b, GPU_LOCAL Sink& sink) {
    Words2 codes[2][2];  // of rows g and g + 8 of each tile
    BlockScale scale[2][2];
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int behind = b * (Quants::kBytes / 4) + i % 2 * 8;
      codes[i / 2][i % 2] =
          Quants::codes(own.row[i / 2] + behind, own.group[i / 2] + behind, own.c, own.table);
      scale[i / 2][i % 2] = Scales::at(own.scales[i / 2], b, own.g + i % 2 * 8);
    }
    GPU_UNROLL
    for (int n = 0; n < kRows / 8; ++n) {
      const int at = b + 8 * n * own.count;
      const Fragment q =
          load_fragment(own.quants + int64_t(at) * kBlockBytes, int64_t(own.count) * kBlockBytes);
      BlockHead x[2];
      GPU_UNROLL
      for (int i = 0; i < 2; ++i)
        x[i] = as_global<const BlockHead>(own.heads + int64_t(at + i * own.count) * kBlockBytes)[0];
      Dot first[4], second[4];
      begin_dots(x, first, second);
      GPU_UNROLL
      for (int t = 0; t < 2; ++t) {
        float dots[4];
        multiply(codes[t], q, scale[t], first, second, dots);
        GPU_UNROLL
        for (int i = 0; i < 4; ++i)
          give_terms<Scales>(t * kOfTile + n * 4 + i, dots[i], scale[t][i / 2], x[i % 2], sink);
      }
    }
  }

  // What the sums of products begin with: of both halves where these have scales of their own.
  static GPU_INLINE void begin_dots(GPU_LOCAL const BlockHead (&x)[2], GPU_LOCAL Dot (&first)[4],
                                    GPU_LOCAL Dot (&second)[4]) {
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) {
      first[i] = Scales::kGroups ? first_dot<kOffset>(first_sum(x[i % 2]))
                                 : kDotBase + first_dot<kOffset>(x[i % 2].total);
      second[i] = Scales::kGroups ? first_dot<kOffset>(second_sum(x[i % 2])) : Dot(0);
    }
  }

  static GPU_INLINE void multiply(GPU_LOCAL const Words2 (&codes)[2], Fragment q,
                                  GPU_LOCAL const BlockScale (&scale)[2],
                                  GPU_LOCAL const Dot (&first)[4], GPU_LOCAL const Dot (&second)[4],
                                  GPU_LOCAL float (&dots)[4]) {
    Dot sum[4], other[4];
    if (Scales::kGroups) {
      multiply16<kOffset>(sum, codes[0].x, codes[1].x, q.x, first);
      multiply16<kOffset>(other, codes[0].y, codes[1].y, q.y, second);
      GPU_UNROLL
      for (int i = 0; i < 4; ++i)
        dots[i] = float(Dot(scale[i / 2].of_group[0]) * sum[i] +
                        Dot(scale[i / 2].of_group[1]) * other[i]);
    } else {
      multiply32<kOffset>(sum, codes[0], codes[1], q, first);
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) dots[i] = float_of_dot(sum[i]);
    }
  }
};

// ---- float formats ------------------------------------------------------------------------------

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

/// A block is 512 of K, and its term their sum, once. A lane has a row of the strip.
template <class Element, int kPanelRows>
struct FloatDots {
  GPU_INT kRows = kPanelRows, kTerms = kPanelRows, kKinds = 1;

  static GPU_INLINE int count(GPU_CONSTANT MatmulArguments& a) { return (a.k + 511) / 512; }
  static GPU_INLINE int row_of(int, int lane) { return lane; }
  static GPU_INLINE int column_of(int term, int) { return term; }

  struct Lane {
    int r, k;
    int last;  // activation row; those of the panel behind it take its place
    Bytes tile;
    Global<const float> x;
  };
  static GPU_INLINE Lane begin(GPU_CONSTANT MatmulArguments& a, Strip s, int matrix, int lane) {
    return Lane{lane % 16, a.k, s.columns - 1,
                tiles_of(a, s, matrix) + (lane < 16 ? s.first : s.second),
                a.x_float + int64_t(s.x_row) * a.k};
  }

  template <class Sink>
  static GPU_INLINE void make(Lane own, int b, GPU_LOCAL Sink& sink) {
    const int begin = b * 512, end = begin + 512 < own.k ? begin + 512 : own.k;
    float sum[kRows];
    int row[kRows];
    GPU_UNROLL
    for (int i = 0; i < kRows; ++i) {
      sum[i] = 0;
      row[i] = (i < own.last ? i : own.last) * own.k;
    }
    for (int k = begin; k < end; ++k) {
      const float w = Element::at(own.tile, int64_t(k) * 16 + own.r);
      GPU_UNROLL
      for (int i = 0; i < kRows; ++i) sum[i] = fused(w, own.x[row[i] + k], sum[i]);
    }
    GPU_UNROLL
    for (int i = 0; i < kRows; ++i) sink.add(i, 0, sum[i], 1.0f);
  }
};

// ---- products -----------------------------------------------------------------------------------

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
template <class Dots, int kActivation>
struct SplitMatmul {
  using Arguments = MatmulArguments;
  GPU_INT kMatrices = kActivation == kGated ? 2 : 1;
  GPU_INT kTerms = kMatrices * Dots::kTerms;  // of a lane and a block of K
  GPU_INT kKinds = Dots::kKinds;
  GPU_INT kWindow = kTerms <= 2 ? 32 : 64 / kTerms;  // blocks
  GPU_INT kWarps = kWindow > 8 ? 8 : kWindow / 2;
  GPU_INT kThreads = kWarps * 32;
  GPU_INT kChains = (kTerms + kWarps - 1) / kWarps;  // of a lane
  GPU_INT kSize = kWindow * kKinds * kTerms * 32;
  struct Memory {
    SharedArray<Term, kSize> terms;  // [window][kinds][terms][lanes]; then results
  };

  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory& memory, Place at) {
    const Strip s = find_strip(a, at.block, at.row, Dots::kRows);
    if (s.columns <= 0) return;
    const int count = Dots::count(a);
    const typename Dots::Lane own = Dots::begin(a, s, s.matrix, at.lane);
    const typename Dots::Lane up = Dots::begin(a, s, kMatrices == 2 ? 1 : s.matrix, at.lane);
    float acc[kChains];
    for (int i = 0; i < kChains; ++i) acc[i] = 0;
    for (int first = 0; first < count; first += kWindow) {
      const int left = count - first, n = left < kWindow ? left : kWindow;
      make_window(own, up, first, n, memory, at);
      barrier();
      add_window(n, memory, at, acc);
      barrier();
    }
    GPU_UNROLL
    for (int i = 0; i < kChains; ++i) {
      const int term = at.warp + i * kWarps, of = term % Dots::kTerms;
      if (term >= kTerms) break;
      const int column = term / Dots::kTerms * Dots::kRows + Dots::column_of(of, at.lane);
      memory.terms[column * 32 + Dots::row_of(of, at.lane)] = Term{acc[i], 0};
    }
    barrier();
    finish<kActivation, Dots::kRows>(a, s, memory.terms, at, kWarps);
  }

  // Whole windows without a branch, so that the loads of all their blocks can be on their way.
  static GPU_INLINE void make_window(typename Dots::Lane own, typename Dots::Lane up, int first,
                                     int n, GPU_SHARED Memory& memory, Place at) {
    if (n == kWindow) {
      GPU_UNROLL
      for (int i = 0; i < kWindow; i += kWarps) make_block(own, up, first, i + at.warp, memory, at);
    } else {
      for (int i = at.warp; i < n; i += kWarps) make_block(own, up, first, i, memory, at);
    }
  }

  static GPU_INLINE void make_block(typename Dots::Lane own, typename Dots::Lane up, int first,
                                    int i, GPU_SHARED Memory& memory, Place at) {
    const int place = i * kKinds * kTerms * 32 + at.lane;
    SharedTerms<kSize, kTerms> sink = {memory.terms, place};
    Dots::make(own, first + i, sink);
    if (kMatrices == 2) {
      SharedTerms<kSize, kTerms> behind = {memory.terms, place + Dots::kTerms * 32};
      Dots::make(up, first + i, behind);
    }
  }

  static GPU_INLINE void add_window(int n, GPU_SHARED Memory& memory, Place at,
                                    GPU_LOCAL float (&acc)[kChains]) {
    for (int b = 0; b < n; ++b) {
      GPU_UNROLL
      for (int i = 0; i < kChains; ++i) {
        const int term = at.warp + i * kWarps;
        if (kTerms % kWarps != 0 && term >= kTerms) break;
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
template <class Dots>
struct ManyRowsMatmul {
  using Arguments = MatmulArguments;
  GPU_INT kWarps = 4, kThreads = kWarps * 32;
  using Memory = NoMemory;

  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory&, Place at) {
    const int strip = at.block * kWarps + at.warp;
    if (strip >= a.strips) return;
    const Strip s = find_strip(a, strip, at.row, Dots::kRows);
    if (s.columns <= 0) return;
    const typename Dots::Lane own = Dots::begin(a, s, s.matrix, at.lane);
    OwnChains<Dots::kTerms> chains;
    GPU_UNROLL
    for (int t = 0; t < Dots::kTerms; ++t) chains.acc[t] = 0;
    GPU_NO_UNROLL
    for (int b = 0; b < Dots::count(a); ++b) Dots::make(own, b, chains);
    const int width = a.matrix[s.matrix].rows;
    GPU_UNROLL
    for (int t = 0; t < Dots::kTerms; ++t) {
      const int row = Dots::row_of(t, at.lane), column = Dots::column_of(t, at.lane);
      if (row < s.rows && column < s.columns)
        a.y[s.matrix][int64_t(s.y_row + column) * width + s.row + row] =
            scaled(chains.acc[t], scale_of(a, s, s.matrix));
    }
  }
};

}  // namespace gpu
}  // namespace gemtp
