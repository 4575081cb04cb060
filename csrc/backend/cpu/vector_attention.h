// Attention over a vector of 16 floats; see vector_kernels.h for what an instruction set provides.
#pragma once

#include "backend/cpu/vector_kernels.h"

namespace {

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
    const F32x16 lowest = set1(gemtp_f32_from_bits(0xff800000u));  // -inf
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
