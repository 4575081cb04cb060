// What is chosen among scores: the best logit, the best clusters and their tokens, the experts of
// a row.
#pragma once

#include "backend/gpu/kernels/elements.h"

namespace gemtp {
namespace gpu {

/// Whether logit a, of index i, comes before b, of index j: the larger one, of equal ones the
/// first; but before all others the first that is NaN or +infinity.
GPU_INLINE bool better(Best a, Best b) {
  const bool damaged_a = !(a.logit < infinity()), damaged_b = !(b.logit < infinity());
  if (damaged_a != damaged_b) return damaged_a;
  if (damaged_a || a.logit == b.logit) return a.index < b.index;
  return a.logit > b.logit;
}

/// The best of what all threads of a block have, for all of them.
template <int kThreads>
struct BlockBest {
  struct Memory {
    SharedArray<Best, kThreads / 32> of_warp;
  };
  static GPU_INLINE Best of_warp(Best own, int lane) {
    for (int i = 16; i > 0; i /= 2) {
      const Best other = Best{shuffle_xor(own.index, lane, i), shuffle_xor(own.logit, lane, i)};
      if (better(other, own)) own = other;
    }
    return own;
  }
  static GPU_INLINE Best find(Best own, GPU_SHARED Memory& memory, Place at) {
    own = of_warp(own, at.lane);
    if (at.lane == 0) memory.of_warp[at.warp] = own;
    barrier();
    for (int w = 0; w < kThreads / 32; ++w) {
      const Best other = memory.of_warp[w];
      if (better(other, own)) own = other;
    }
    return own;
  }
};

struct HeadSoftcap {
  using Arguments = HeadArguments;
  GPU_INT kThreads = 256;
  using Memory = BlockBest<kThreads>::Memory;
  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory& memory, Place at) {
    const int size = (a.n + a.parts - 1) / a.parts, begin = at.block * size;
    const int end = begin + size < a.n ? begin + size : a.n;
    const Global<float> row = a.logits + int64_t(at.row) * a.n;
    Best best = {0x7fffffff, -infinity()};
    for (int i = begin + at.index; i < end; i += kThreads) {
      float x = row[i];
      if (a.cap > 0) {
        x = flushed(a.cap * tanh_of(x / a.cap));
        row[i] = x;
      }
      const Best own = {i, x};
      if (better(own, best)) best = own;
    }
    best = BlockBest<kThreads>::find(best, memory, at);
    if (at.index == 0) a.part_best[at.row * a.parts + at.block] = best;
  }
};

struct BestOfParts {
  using Arguments = HeadArguments;
  GPU_INT kThreads = 32;
  using Memory = NoMemory;
  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory&, Place at) {
    Best best = {0x7fffffff, -infinity()};
    for (int i = at.lane; i < a.parts; i += 32) {
      const Best other = a.part_best[at.row * a.parts + i];
      if (better(other, best)) best = other;
    }
    best = BlockBest<kThreads>::of_warp(best, at.lane);
    if (at.lane == 0) a.best[at.row] = best;
  }
};

/// A thread has a score, and counts those before it.
struct TopClusters {
  using Arguments = TopArguments;
  GPU_INT kThreads = 256;
  struct Memory {
    SharedArray<float, kThreads> scores;
  };
  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory& memory, Place at) {
    const int i = at.block * kThreads + at.index;
    const float own = i < a.n ? a.scores[i] : 0.0f;
    int before = 0;
    for (int first = 0; first < a.n; first += kThreads) {
      memory.scores[at.index] = first + at.index < a.n ? a.scores[first + at.index] : 0.0f;
      barrier();
      const int left = a.n - first, count = left < kThreads ? left : kThreads;
      for (int j = 0; j < count; ++j) {
        const float other = memory.scores[j];
        before += other > own || (other == own && first + j < i);
      }
      barrier();
    }
    if (i < a.n && before < a.top) a.chosen[before] = MatrixRows{i, before, 1};
  }
};

/// A thread has a candidate, and counts those below it in every cluster.
struct SortCandidates {
  using Arguments = CandidatesArguments;
  using Memory = NoMemory;
  GPU_INT kThreads = 256;
  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory&, Place at) {
    const int i = at.block * kThreads + at.index;
    if (i >= a.top * a.per_cluster) return;
    const MatrixRows own = a.chosen[i / a.per_cluster];
    const int token = a.tokens[int64_t(own.matrix) * a.per_cluster + i % a.per_cluster];
    int place = 0;
    for (int c = 0; c < a.top; ++c) {
      const MatrixRows other = a.chosen[c];
      place += count_below(a.tokens + int64_t(other.matrix) * a.per_cluster, a.per_cluster, token);
    }
    a.candidates[place] = token;
    a.sorted_logits[place] = a.logits[i];
  }

  // How many of n ascending numbers are below x.
  static GPU_INLINE int count_below(Global<const int32_t> numbers, int n, int x) {
    int low = 0, high = n;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (numbers[middle] < x)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
};

/// A warp has a row while experts are chosen, a thread an expert while slots are grouped by it.
struct Route {
  using Arguments = RouteArguments;
  GPU_INT kThreads = 256;
  struct Memory {
    SharedArray<int32_t, kThreads> slots, lists;  // of the experts of a piece: slots, in use or not
  };

  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory& memory, Place at) {
    for (int row = at.warp; row < a.m; row += kThreads / 32) choose(a, row, at.lane);
    barrier();
    int place = 0, list = 0;  // where the next expert's slots and entry go
    for (int first = 0; first < a.experts; first += kThreads) {
      const int expert = first + at.index, slots = a.m * a.used;
      int count = 0;
      for (int i = 0; i < slots && expert < a.experts; ++i) count += a.slot_expert[i] == expert;
      memory.slots[at.index] = count;
      barrier();
      int own_place = place, own_list = list;
      for (int i = 0; i < kThreads; ++i) {
        const int n = memory.slots[i];
        if (i < at.index) {
          own_place += n;
          own_list += n > 0;
        }
        place += n;
        list += n > 0;
      }
      barrier();
      if (count > 0) {
        a.list[own_list] = MatrixRows{expert, own_place, count};
        for (int i = 0; i < slots; ++i) {
          if (a.slot_expert[i] != expert) continue;
          a.slot_place[i] = own_place;
          a.place_row[own_place] = i / a.used;
          ++own_place;
        }
      }
    }
    for (int i = list + at.index; i < a.experts; i += kThreads) a.list[i] = MatrixRows{0, 0, 0};
  }

  // The experts of a row, best first (of equal ones the first), and their weights: softmax over
  // all, those used renormalised, times the expert's scale.
  static GPU_INLINE void choose(GPU_CONSTANT Arguments& a, int row, int lane) {
    const Global<const float> scores = a.scores + int64_t(row) * a.experts;
    Best last = {-1, infinity()};
    float best = 0, total = 0;
    for (int i = 0; i < a.used; ++i) {
      Best next = {0x7fffffff, -infinity()};
      for (int e = lane; e < a.experts; e += 32) {
        const Best own = {e, scores[e]};
        const bool taken = own.logit > last.logit || (own.logit == last.logit && e <= last.index);
        if (!taken && better(own, next)) next = own;
      }
      last = BlockBest<32>::of_warp(next, lane);
      if (i == 0) best = last.logit;
      const float odds = exp_of(last.logit - best);
      total = total + odds;
      if (lane == 0) {
        a.slot_expert[row * a.used + i] = last.index;
        a.slot_weight[row * a.used + i] = odds;
      }
    }
    if (lane > 0) return;
    for (int i = row * a.used; i < (row + 1) * a.used; ++i)
      a.slot_weight[i] = flushed(a.slot_weight[i] / total * a.per_expert_scale[a.slot_expert[i]]);
  }
};

}  // namespace gpu
}  // namespace gemtp
