// Attention in two launches. Queries that share a K/V head go in tiles, so that K and V are read
// once for a tile. Sums over positions are made of parts of 512 positions, by absolute position,
// which are added in order.
#pragma once

#include "backend/gpu/kernels/heads.h"

namespace gemtp {
namespace gpu {

GPU_INT kScorePositions = 128;  // of a block of scores, and of a maximum
GPU_INT kPart = 512;            // positions whose sum is one chain

/// Some queries of a K/V head.
struct QueryTile {
  KvPlace kv;
  int row;                    // first of the run's rows
  int kv_head, first, count;  // of the queries that the run's rows have for the K/V head
  int group;                  // queries of a row
  int begin, end;             // positions: of the union of spans
  int base;                   // begin, down to a multiple of kScorePositions
};

template <int kQueries>
struct QueryTiles {
  static GPU_INLINE QueryTile find(GPU_CONSTANT AttentionArguments& a, Place at) {
    QueryTile t;
    t.group = a.heads / a.kv_heads;
    t.kv_head = at.row / a.tiles;
    int tile = at.row % a.tiles, i = 0;
    Run run = clipped(a, 0);
    while (tile >= tiles_of(run, t.group)) {
      tile -= tiles_of(run, t.group);
      run = clipped(a, ++i);
    }
    const int n = run.count * t.group;
    t.kv = a.kv[run.sequence];
    t.row = run.first - a.first_row;
    t.first = tile * kQueries;
    t.count = n - t.first < kQueries ? n - t.first : kQueries;
    t.begin = 0x7fffffff;
    t.end = 0;
    for (int query = 0; query < t.count; ++query) {
      const Span s = span(a, t, query);
      t.begin = s.first < t.begin ? s.first : t.begin;
      t.end = s.last + 1 > t.end ? s.last + 1 : t.end;
    }
    t.base = t.begin / kScorePositions * kScorePositions;
    return t;
  }
  /// The rows of a run that are among the m.
  static GPU_INLINE Run clipped(GPU_CONSTANT AttentionArguments& a, int i) {
    const Run run = a.runs[i];
    const int end = a.first_row + a.m, run_end = run.first + run.count;
    const int first = run.first > a.first_row ? run.first : a.first_row;
    return Run{first, (run_end < end ? run_end : end) - first, run.sequence};
  }
  static GPU_INLINE int tiles_of(Run run, int group) {
    return (run.count * group + kQueries - 1) / kQueries;
  }
  static GPU_INLINE Span span(GPU_CONSTANT AttentionArguments& a, QueryTile t, int i) {
    return a.spans[t.row + (t.first + i) / t.group];
  }
  /// The query's number among those of all rows and heads.
  static GPU_INLINE int64_t number(GPU_CONSTANT AttentionArguments& a, QueryTile t, int i) {
    const int query = t.first + i;
    return int64_t(t.row + query / t.group) * a.heads + t.kv_head * t.group + query % t.group;
  }
};

/// A lane has a key, and its dots with the queries of a tile.
template <class Kv, int kQueries>
struct AttentionScores {
  using Arguments = AttentionArguments;
  using Tiles = QueryTiles<kQueries>;
  GPU_INT kThreads = kScorePositions, kWarps = kThreads / 32, kDims = 256;
  struct Memory {
    SharedArray<float, kQueries * kDims> q;  // [kDims][kQueries] of the tile
    SharedArray<float, kWarps * kQueries> maxima;
  };

  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory& memory, Place at) {
    const QueryTile tile = Tiles::find(a, at);
    const int block = tile.base + at.block * kScorePositions;
    if (block >= tile.end) return;
    const int t = block + at.index;
    // Lanes of positions that nobody asks for read the key of one that somebody does.
    const int slot = (t < tile.begin ? tile.begin
                      : t < tile.end ? t
                                     : tile.end - 1) %
                     tile.kv.capacity;
    const Global<const uint8_t> keys = tile.kv.keys + tile.kv_head * tile.kv.key_bytes;
    const int64_t key = int64_t(slot / 16) * 16 * a.d + slot % 16;
    float s[kQueries];
    GPU_UNROLL
    for (int i = 0; i < kQueries; ++i) s[i] = 0;
    for (int first = 0; first < a.d; first += kDims) {
      const int dims = a.d - first < kDims ? a.d - first : kDims;
      for (int i = at.index; i < dims * tile.count; i += kThreads) {
        const int query = i / dims, dim = i % dims;
        memory.q[dim * kQueries + query] = a.q[Tiles::number(a, tile, query) * a.d + first + dim];
      }
      barrier();
      for (int dim = 0; dim < dims; ++dim) {
        const float k = Kv::load(keys, key + int64_t(first + dim) * 16);
        GPU_UNROLL
        for (int i = 0; i < kQueries; ++i) s[i] = fused(memory.q[dim * kQueries + i], k, s[i]);
      }
      barrier();
    }
    put(a, tile, t, s, memory, at);
  }

  static GPU_INLINE void put(GPU_CONSTANT Arguments& a, QueryTile tile, int t,
                             GPU_LOCAL const float (&s)[kQueries], GPU_SHARED Memory& memory,
                             Place at) {
    GPU_UNROLL
    for (int i = 0; i < kQueries; ++i) {
      const bool exists = i < tile.count;
      float own = -infinity();
      if (exists) {
        const Span span = Tiles::span(a, tile, i);
        if (t >= span.first && t <= span.last) {
          a.p[Tiles::number(a, tile, i) * a.p_stride + t - tile.base] = s[i];
          own = s[i] > own ? s[i] : own;
        }
      }
      const float most = warp_max(own, at.lane);
      if (at.lane == 0) memory.maxima[at.warp * kQueries + i] = most;
    }
    barrier();
    if (at.index >= tile.count) return;
    float most = -infinity();
    for (int w = 0; w < kWarps; ++w) {
      const float of_warp = memory.maxima[w * kQueries + at.index];
      most = of_warp > most ? of_warp : most;
    }
    a.maxima[Tiles::number(a, tile, at.index) * (a.p_stride / kScorePositions) + at.block] = most;
  }
};

/// A lane has a dim of the values, a warp a part of the positions. The weights of 32 positions are
/// made by the lanes, and read by all.
template <class Kv, int kQueries>
struct AttentionValues {
  using Arguments = AttentionArguments;
  using Tiles = QueryTiles<kQueries>;
  GPU_INT kWarps = 8, kThreads = kWarps * 32;
  struct Memory {
    SharedArray<float, kQueries> most;                   // the largest score of a query
    SharedArray<float, kWarps * 32 * kQueries> weights;  // [warps][positions][queries]
    SharedArray<float, kWarps * kQueries * 32> values;   // [warps][queries][dims] of a part
    SharedArray<float, kWarps * kQueries> sums;          // [warps][queries] of a part
  };

  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory& memory, Place at) {
    const QueryTile tile = Tiles::find(a, at);
    find_most(a, tile, memory, at);
    barrier();
    float value = 0, sum = 0;  // of query at.warp, if there is one, and dim at.lane
    for (int part = tile.begin / kPart; part * kPart < tile.end; part += kWarps) {
      if ((part + at.warp) * kPart < tile.end) add_part(a, tile, part + at.warp, memory, at);
      barrier();
      if (at.warp < tile.count) {
        const Span span = Tiles::span(a, tile, at.warp);
        for (int w = 0; w < kWarps; ++w) {
          const int first = (part + w) * kPart;
          if (first > span.last || first + kPart <= span.first) continue;
          value = value + memory.values[(w * kQueries + at.warp) * 32 + at.lane];
          sum = sum + memory.sums[w * kQueries + at.warp];
        }
      }
      barrier();
    }
    if (at.warp >= tile.count) return;
    const int dim = at.block * 32 + at.lane;
    const int64_t place = Tiles::number(a, tile, at.warp) * a.d + dim;
    const float out = dim < a.d ? flushed(value / sum) : 0.0f;
    if (a.out && dim < a.d) a.out[place] = out;
    if (a.quantized) quantize_block(out, at.lane, a.quantized, place / 32);
  }

  static GPU_INLINE void find_most(GPU_CONSTANT Arguments& a, QueryTile tile,
                                   GPU_SHARED Memory& memory, Place at) {
    for (int i = at.warp; i < tile.count; i += kWarps) {
      const Global<const float> maxima =
          a.maxima + Tiles::number(a, tile, i) * (a.p_stride / kScorePositions);
      float most = -infinity();
      for (int b = at.lane; b * kScorePositions < tile.end - tile.base; b += 32)
        most = maxima[b] > most ? float(maxima[b]) : most;
      most = warp_max(most, at.lane);
      if (at.lane == 0) memory.most[i] = most;
    }
  }

  static GPU_INLINE void add_part(GPU_CONSTANT Arguments& a, QueryTile tile, int part,
                                  GPU_SHARED Memory& memory, Place at) {
    const int begin = part * kPart > tile.begin ? part * kPart : tile.begin;
    const int end = part * kPart + kPart < tile.end ? part * kPart + kPart : tile.end;
    float acc[kQueries], lanes[kQueries];  // sums of values; of weights, by position % 16
    GPU_UNROLL
    for (int i = 0; i < kQueries; ++i) acc[i] = lanes[i] = 0;
    for (int t = begin / 32 * 32; t < end; t += 32) {
      const bool whole = make_weights(a, tile, t, memory, at, lanes);
      const int from = t > begin ? t : begin, to = t + 32 < end ? t + 32 : end;
      add_values(a, tile, from, to, whole, memory, at, acc);
    }
    GPU_UNROLL
    for (int i = 0; i < kQueries; ++i) {
      memory.values[(at.warp * kQueries + i) * 32 + at.lane] = acc[i];
      const float sum = fold16(lanes[i], at.lane);
      if (at.lane == 0) memory.sums[at.warp * kQueries + i] = sum;
    }
  }

  // Weights of positions t .. t + 31, 0 outside of a query's span. Whether all spans hold all.
  static GPU_INLINE bool make_weights(GPU_CONSTANT Arguments& a, QueryTile tile, int t,
                                      GPU_SHARED Memory& memory, Place at,
                                      GPU_LOCAL float (&lanes)[kQueries]) {
    bool whole = true;
    warp_barrier();
    GPU_UNROLL
    for (int i = 0; i < kQueries; ++i) {
      float weight = 0;
      if (i < tile.count) {
        const Span span = Tiles::span(a, tile, i);
        const int own = t + at.lane;
        if (own >= span.first && own <= span.last)
          weight = exp_of(a.p[Tiles::number(a, tile, i) * a.p_stride + own - tile.base] -
                          memory.most[i]);
        whole = whole && t >= span.first && t + 31 <= span.last;
      }
      memory.weights[(at.warp * 32 + at.lane) * kQueries + i] = weight;
      // Positions t .. t + 15 go to the chains before t + 16 .. t + 31.
      const float upper = shuffle_xor(weight, at.lane, 16);
      if (at.lane < 16) lanes[i] = (lanes[i] + weight) + upper;
    }
    warp_barrier();
    return whole;
  }

  static GPU_INLINE void add_values(GPU_CONSTANT Arguments& a, QueryTile tile, int from, int to,
                                    bool whole, GPU_SHARED Memory& memory, Place at,
                                    GPU_LOCAL float (&acc)[kQueries]) {
    const int dim = at.block * 32 + at.lane;
    const int column = (dim < a.d ? dim : a.d - 1) / 16;
    const Global<const uint8_t> values = tile.kv.values + tile.kv_head * tile.kv.value_bytes;
    const int64_t first = int64_t(column) * tile.kv.capacity * 16 + at.lane % 16;
    int slot = from % tile.kv.capacity;
    for (int t = from; t < to; ++t) {
      const float v = Kv::load(values, first + int64_t(slot) * 16);
      slot = slot + 1 == tile.kv.capacity ? 0 : slot + 1;
      const int place = (at.warp * 32 + t % 32) * kQueries;
      GPU_UNROLL
      for (int i = 0; i < kQueries; ++i) {
        const float sum = fused(memory.weights[place + i], v, acc[i]);
        acc[i] = whole || holds(a, tile, i, t) ? sum : acc[i];
      }
    }
  }

  static GPU_INLINE bool holds(GPU_CONSTANT Arguments& a, QueryTile tile, int i, int t) {
    if (i >= tile.count) return false;
    const Span span = Tiles::span(a, tile, i);
    return t >= span.first && t <= span.last;
  }
};

}  // namespace gpu
}  // namespace gemtp
