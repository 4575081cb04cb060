// Elements and rows that are copied, scaled, looked up or added up.
#pragma once

#include "backend/gpu/kernels/arguments.h"
#include "backend/gpu/kernels/matmul.h"

namespace gemtp {
namespace gpu {

enum ElementOperation { kCopy, kQuantize, kGeluMul, kSoftcap };

/// Blocks of 256 elements, wherever rows end.
template <int kOperation>
struct Elements {
  using Arguments = ElementsArguments;
  using Memory = NoMemory;
  GPU_INT kThreads = 256;

  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory&, Place at) {
    const int64_t i = int64_t(at.block) * kThreads + at.index;
    const bool exists = i < a.n;
    float y = 0;
    if (exists) {
      if (kOperation == kCopy || kOperation == kQuantize)
        y = a.x[i];
      else if (kOperation == kGeluMul)
        y = flushed(gelu(a.x[i]) * a.other[i]);
      else
        y = flushed(a.factor * tanh_of(a.x[i] / a.factor));
      if (a.y) a.y[i] = y;
    }
    const bool quantizes = kOperation == kGeluMul || kOperation == kQuantize;
    if (quantizes && a.quantized && i - at.lane < a.n)
      quantize_block(y, at.lane, a.quantized, i / 32);
  }
};

/// Rows of floats, 256 columns a block.
struct Gather {
  using Arguments = GatherArguments;
  using Memory = NoMemory;
  GPU_INT kThreads = 256;
  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory&, Place at) {
    const int i = at.block * kThreads + at.index;
    if (i >= a.n) return;
    const int64_t from = int64_t(a.rows[at.row]) * a.n + i, to = int64_t(at.row) * a.n + i;
    if (a.x) {
      a.y[to] = a.x[from];
    } else {
      const Global<uint8_t> source = a.from + from / 32 * kBlockBytes;
      const Global<uint8_t> target = a.to + to / 32 * kBlockBytes;
      quants_of(target)[i % 32] = quants_of(source)[i % 32];
      if (i % 32 == 0) as_global<BlockHead>(target)[0] = as_global<BlockHead>(source)[0];
    }
  }
};

struct WeightedSum {
  using Arguments = WeightedSumArguments;
  using Memory = NoMemory;
  GPU_INT kThreads = 256;
  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory&, Place at) {
    const int i = at.block * kThreads + at.index;
    if (i >= a.n) return;
    float sum = 0;
    for (int j = at.row * a.terms; j < (at.row + 1) * a.terms; ++j)
      sum = flushed(fused(a.weights[j], a.x[int64_t(a.places[j]) * a.n + i], sum));
    a.y[int64_t(at.row) * a.n + i] = sum;
  }
};

/// The row of a packed matrix that a best logit names.
template <class Format>
struct Embed {
  using Arguments = EmbedArguments;
  using Memory = NoMemory;
  GPU_INT kThreads = 256;
  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory&, Place at) {
    const int i = at.block * kThreads + at.index, best = a.best[0].index;
    const int row = a.ids ? int(a.ids[best]) : best;
    if (i == 0) a.id[0] = row;
    if (i >= a.k) return;
    const Bytes tile = a.matrix.tiles + row / 16 * a.matrix.tile_bytes;
    a.y[i] = flushed(element(tile, a.k, row % 16, i, a.matrix.table) * a.scale);
  }

  // Element i of row r of a tile of k columns.
  static GPU_INLINE float element(Bytes tile, int k, int r, int i, Words4 table) {
    using Quants = typename Format::Quants;
    using Scales = typename Format::Scales;
    const int b = i / 32, in_block = i % 32;
    const Words row = as_global<const uint32_t>(tile + int64_t(b) * Quants::kBytes) + r;
    const int c = in_block % 16 / 4;
    const Words2 codes = Quants::codes(row, row + 16 * c, c, table);
    const uint32_t four = in_block < 16 ? codes.x : codes.y;
    const int q = int8_t(four >> (in_block % 4 * 8) & 255) - Quants::kOffset;
    const BlockScale s = Scales::at(tile + int64_t(k / 32) * Quants::kBytes, b, r);
    const float product = (s.scale * float(s.of_group[in_block / 16])) * float(q);
    return Scales::kMin ? product + s.min * float(s.min_of_group[in_block / 16]) : product;
  }
};

}  // namespace gpu
}  // namespace gemtp
