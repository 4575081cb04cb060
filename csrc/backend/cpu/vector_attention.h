// Attention over a vector of 16 floats; see vector_kernels.h for what an instruction set provides.
// Lanes are keys in scores and weights, head dims in values. Both products go in register tiles of
// some queries by some vectors of K or V, so that a vector, once read and widened, serves several
// queries.
#pragma once

#include "backend/cpu/vector_kernels.h"

namespace {

// Returns the number of vectors of K or V in a tile of `queries` queries. Fewer queries get more
// vectors, so that there are always enough sums to keep the FMA units busy.
constexpr int tile_vectors(int queries) {
  const int vectors = kTileQueries * kTileVectors / queries;
  return vectors > kTileVectors ? vectors : kTileVectors;
}

// Number of floats of queries that leave space for a block of keys in the first-level cache, and
// number of blocks of keys that the second-level cache holds. (The values of a chunk in a tile's
// columns fit the first-level cache.)
constexpr int64_t kNearQueries = 3072, kFarBlocks = 8;

// Calls fn(from, to) for the positions from..to-1 of `span` in each chunk, in order.
template <class Fn>
inline void for_each_chunk(gemtp_span span, Fn fn) {
  for (int64_t chunk = span.first / kChunk * kChunk; chunk <= span.last; chunk += kChunk)
    fn(larger(chunk, span.first), smaller(chunk + kChunk, span.last + 1));
}

// ---- scores -------------------------------------------------------------------------------------

// Computes the scores of queries i .. i + kQueries - 1 with the keys of kBlocks blocks from `block`
// on.
template <class Format, int kQueries, int kBlocks>
GEMTP_NOINLINE void score_tile(const gemtp_attention& a, int64_t i, int64_t block) {
  using Element = typename Format::Element;
  const Element* keys[kBlocks];
  F32x16 s[kQueries][kBlocks];
  GEMTP_UNROLL
  for (int b = 0; b < kBlocks; ++b) {
    // A block of 16 positions never wraps around the ring: capacity % 16 == 0.
    const int64_t slot = (a.base + (block + b) * 16) % a.capacity;
    keys[b] = static_cast<const Element*>(a.keys) + slot * a.head_dim;
    GEMTP_UNROLL
    for (int q = 0; q < kQueries; ++q) s[q][b] = zero();
  }
  const float* query[kQueries];
  GEMTP_UNROLL
  for (int q = 0; q < kQueries; ++q) query[q] = a.q[i + q];
  // `ahead`: elements from here to what is prefetched.
  const auto add_dims = [&](int64_t d, int64_t end, int64_t ahead) {
    for (; d < end; ++d) {
      F32x16 key[kBlocks];
      GEMTP_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        prefetch(keys[b] + d * 16 + ahead);
        key[b] = Format::load16(keys[b] + d * 16);
      }
      GEMTP_UNROLL
      for (int q = 0; q < kQueries; ++q) {
        const F32x16 qd = set1(query[q][d]);
        GEMTP_UNROLL
        for (int b = 0; b < kBlocks; ++b) s[q][b] = fma(qd, key[b], s[q][b]);
      }
    }
  };
  // Near the end of a block, prefetching continues with the corresponding block of the next tile.
  constexpr int64_t kAhead = kBytesAhead / static_cast<int64_t>(sizeof(Element));
  const int64_t here = larger(0, a.head_dim - kAhead / 16);
  add_dims(0, here, kAhead);
  add_dims(here, a.head_dim, kAhead + (kBlocks - 1) * a.head_dim * 16);
  GEMTP_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    GEMTP_UNROLL
    for (int b = 0; b < kBlocks; ++b) store(a.p + (i + q) * a.p_stride + (block + b) * 16, s[q][b]);
  }
}

template <class Format, int kQueries, int kBlocks>
void score_blocks(const gemtp_attention& a, int64_t i, int64_t begin, int64_t end) {
  for (; begin + kBlocks <= end; begin += kBlocks)
    score_tile<Format, kQueries, kBlocks>(a, i, begin);
  for (; begin < end; ++begin) score_tile<Format, kQueries, 1>(a, i, begin);
}

template <class Format>
void score(const gemtp_attention& a, int64_t begin, int64_t end) {
  if (a.n_q <= kTileQueries) {
    auto run = [&]<int kQueries>() {
      score_blocks<Format, kQueries, tile_vectors(kQueries)>(a, 0, begin, end);
    };
    with_constant<kTileQueries>(a.n_q, run);
    return;
  }
  // One tile of queries after another passes over a run of keys: over one block if all queries fit
  // the first-level cache beside it, otherwise over as many as the second-level cache holds.
  const int64_t blocks = a.n_q * a.head_dim <= kNearQueries ? kTileVectors : kFarBlocks;
  for (; begin < end; begin += blocks)
    for_each_pass<kTileQueries>(a.n_q, [&]<int kQueries>(int64_t i) {
      score_blocks<Format, kQueries, kTileVectors>(a, i, begin, smaller(begin + blocks, end));
    });
}

void attention_scores(const gemtp_attention* args, int64_t begin, int64_t end) {
  if (args->kv_f16)
    score<F16>(*args, begin, end);
  else
    score<F32>(*args, begin, end);
}

// ---- weights ------------------------------------------------------------------------------------

void attention_weights(const gemtp_attention* args, int64_t begin, int64_t end) {
  const gemtp_attention& a = *args;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = a.spans[i].first - a.base, last = a.spans[i].last - a.base;
    const int64_t first_block = first / 16 * 16, last_block = last / 16 * 16;
    float* p = a.p + i * a.p_stride;
    // Lanes outside the span hold scores of old cache slots; they are replaced before use.
    const auto attended = [&](int64_t block, F32x16 v, F32x16 other) {
      if (block > first_block && block < last_block) return v;
      return select_lanes(larger(0, first - block), smaller(16, last - block + 1), v, other);
    };
    const F32x16 lowest = set1(gemtp_f32_from_bits(0xff800000u));  // -inf
    F32x16 maxima = lowest;
    for (int64_t block = first_block; block <= last_block; block += 16)
      maxima = max(attended(block, load(p + block), lowest), maxima);
    const F32x16 largest = set1(max_of(maxima));
    float sum = 0.0f;
    for_each_chunk(a.spans[i], [&](int64_t from, int64_t to) {
      F32x16 lanes = zero();  // lanes not attended to add +0 to sums that are never -0
      for (int64_t block = (from - a.base) / 16 * 16; block < to - a.base; block += 16) {
        const F32x16 e = attended(block, exp_of(load(p + block) - largest), zero());
        store(p + block, e);
        lanes = lanes + e;
      }
      sum = sum + fold(lanes);
    });
    a.sums[i] = sum;
  }
}

// ---- values -------------------------------------------------------------------------------------

// Adds positions from..to-1, which do not wrap around the ring, to the chunk's sums of queries
// i .. i + kQueries - 1 in columns c .. c + kColumns - 1: sums is [kQueries][kColumns][16].
template <class Format, int kQueries, int kColumns>
GEMTP_NOINLINE void value_tile(const gemtp_attention& a, int64_t i, int64_t c, int64_t from,
                               int64_t to, float* sums) {
  using Element = typename Format::Element;
  const int64_t column = a.capacity * 16;
  const Element* v = static_cast<const Element*>(a.values) + c * column + from % a.capacity * 16;
  const float* weights[kQueries];
  F32x16 acc[kQueries][kColumns];
  GEMTP_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    weights[q] = a.p + (i + q) * a.p_stride + from - a.base;
    GEMTP_UNROLL
    for (int k = 0; k < kColumns; ++k) acc[q][k] = load(sums + (q * kColumns + k) * 16);
  }
  for (int64_t t = 0; t < to - from; ++t) {
    F32x16 value[kColumns];
    GEMTP_UNROLL
    for (int k = 0; k < kColumns; ++k) {
      const Element* at = v + k * column + t * 16;
      prefetch(reinterpret_cast<const char*>(at) + kBytesAhead);
      value[k] = Format::load16(at);
    }
    GEMTP_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      const F32x16 weight = set1(weights[q][t]);
      GEMTP_UNROLL
      for (int k = 0; k < kColumns; ++k) acc[q][k] = fma(weight, value[k], acc[q][k]);
    }
  }
  GEMTP_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    GEMTP_UNROLL
    for (int k = 0; k < kColumns; ++k) store(sums + (q * kColumns + k) * 16, acc[q][k]);
  }
}

// The same for the positions in each query's span: query by query before and after the positions
// that all of them attend to.
template <class Format, int kQueries, int kColumns>
void add_attended(const gemtp_attention& a, int64_t i, int64_t c, int64_t from, int64_t to,
                  float* sums) {
  int64_t all_from = from, all_to = to;
  for (int64_t j = i; j < i + kQueries; ++j) {
    all_from = larger(all_from, a.spans[j].first);
    all_to = smaller(all_to, a.spans[j].last + 1);
  }
  all_to = larger(all_from, all_to);
  const auto add_alone = [&](int64_t begin, int64_t end) {
    for (int64_t j = i; j < i + kQueries; ++j) {
      const int64_t first = larger(begin, a.spans[j].first);
      const int64_t behind = smaller(end, a.spans[j].last + 1);
      if (first < behind)
        value_tile<Format, 1, kColumns>(a, j, c, first, behind, sums + (j - i) * kColumns * 16);
    }
  };
  add_alone(from, smaller(all_from, to));
  if (all_from < all_to) value_tile<Format, kQueries, kColumns>(a, i, c, all_from, all_to, sums);
  add_alone(all_to, to);
}

// Adds the sums of a chunk's positions from..to-1 to the results, also for queries that attend to
// none of them (then +0).
template <class Format, int kQueries, int kColumns>
void add_chunk(const gemtp_attention& a, int64_t i, int64_t c, int64_t from, int64_t to) {
  alignas(64) float sums[kQueries * kColumns * 16];
  GEMTP_UNROLL
  for (int j = 0; j < kQueries * kColumns; ++j) store(sums + j * 16, zero());
  while (from < to) {  // in runs that do not wrap around the ring
    const int64_t behind = smaller(to, from + a.capacity - from % a.capacity);
    add_attended<Format, kQueries, kColumns>(a, i, c, from, behind, sums);
    from = behind;
  }
  for (int q = 0; q < kQueries; ++q)
    for (int k = 0; k < kColumns; ++k) {
      float* out = a.out[i + q] + (c + k) * 16;
      const int64_t dims = smaller(16, a.head_dim - (c + k) * 16);
      store_n(out, load_n(out, dims) + load(sums + (q * kColumns + k) * 16), dims);
    }
}

template <class Format, int kColumns>
void add_columns(const gemtp_attention& a, int64_t c, gemtp_span all) {
  for_each_chunk(all, [&](int64_t from, int64_t to) {
    for_each_pass<kTileQueries>(a.n_q, [&]<int kQueries>(int64_t i) {
      add_chunk<Format, kQueries, kColumns>(a, i, c, from, to);
    });
  });
}

template <class Format>
void add_values(const gemtp_attention& a, int64_t begin, int64_t end) {
  const int64_t first_dim = begin * 16, n_dims = smaller(end * 16, a.head_dim) - first_dim;
  gemtp_span all = a.spans[0];
  for (int64_t i = 0; i < a.n_q; ++i) {
    all.first = smaller(all.first, a.spans[i].first);
    all.last = larger(all.last, a.spans[i].last);
    float* out = a.out[i] + first_dim;
    map(out, n_dims, out, [](F32x16) { return zero(); });
  }
  int64_t c = begin;
  if (a.n_q <= kTileQueries) {
    auto run = [&]<int kQueries>() {
      constexpr int kColumns = tile_vectors(kQueries);
      for (; c + kColumns <= end; c += kColumns)
        for_each_chunk(all, [&](int64_t from, int64_t to) {
          add_chunk<Format, kQueries, kColumns>(a, 0, c, from, to);
        });
    };
    with_constant<kTileQueries>(a.n_q, run);
  }
  for (; c + kTileVectors <= end; c += kTileVectors) add_columns<Format, kTileVectors>(a, c, all);
  for (; c < end; ++c) add_columns<Format, 1>(a, c, all);
  for (int64_t i = 0; i < a.n_q; ++i) {
    float* out = a.out[i] + first_dim;
    const F32x16 sum = set1(a.sums[i]);
    map(out, n_dims, out, [&](F32x16 v) { return flush(v / sum); });
  }
}

void attention_values(const gemtp_attention* args, int64_t begin, int64_t end) {
  if (args->kv_f16)
    add_values<F16>(*args, begin, end);
  else
    add_values<F32>(*args, begin, end);
}

}  // namespace
