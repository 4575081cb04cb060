#include "backend/cpu/cpu_attention.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace gemtp {
namespace {

// Pieces per thread: enough that a thread which was descheduled does not hold up the others.
constexpr int64_t kPiecesPerThread = 4;

// Queries that share a K/V head go together. Up to kTogether of them are one piece: a step of
// decoding, or the drafts it verifies, read K and V once. Beyond that, as in prefill, pieces of
// about kPerPiece are enough for K and V to cost little, and their weights stay in a near cache.
constexpr int64_t kTogether = 128;
constexpr int64_t kPerPiece = 64;

// Largest number of weights of a piece (8 MiB); if several rows have more, each is a piece.
constexpr int64_t kMaxWeights = 2 << 20;

// Limits in products (queries times positions times head dims): below the first, waking other
// threads costs more than it saves; below the second, three sections cost more than their balance
// saves.
constexpr int64_t kSerialProducts = 1 << 17;
constexpr int64_t kStepProducts = 1 << 19;

// Up to this many values one thread stores faster than several.
constexpr int64_t kSerialFloats = 16384;

}  // namespace

void CpuKv::get_block(int64_t b, uint8_t* to) const {
  const auto get = [&to](const Bytes& from) {
    return [&to, base = from.get()](int64_t at, int64_t n) {
      std::memcpy(to, base + at, static_cast<size_t>(n));
      to += n;
    };
  };
  for_each_part(b, get(keys), get(values));
}

void CpuKv::put_block(int64_t b, const uint8_t* from) {
  const auto put = [&from](const Bytes& to) {
    return [&from, base = to.get()](int64_t at, int64_t n) {
      std::memcpy(base + at, from, static_cast<size_t>(n));
      from += n;
    };
  };
  for_each_part(b, put(keys), put(values));
}

std::unique_ptr<KvLayer> CpuAttention::make_kv(int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                               bool f16) {
  GEMTP_ASSERT(capacity % 16 == 0);
  auto kv = std::make_unique<CpuKv>();
  kv->kv_heads = kv_heads;
  kv->head_dim = head_dim;
  kv->capacity = capacity;
  kv->f16 = f16;
  kv->keys = allocate(kv_heads * kv->key_bytes());
  kv->values = allocate(kv_heads * kv->value_bytes());
  kv->bytes = kv_heads * (kv->key_bytes() + kv->value_bytes());
  return kv;
}

void CpuAttention::store(KvLayer& layer, const float* k, const float* v, int64_t first, int64_t m) {
  const auto& kv = static_cast<const CpuKv&>(layer);
  const int64_t first_block = first / 16, blocks = (first + m - 1) / 16 - first_block + 1;
  const int64_t units = blocks * kv.kv_heads;
  const int64_t grain = m * kv.kv_heads * kv.head_dim < kSerialFloats ? units : 1;
  pool_.parallel_for(units, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t block = first_block + unit / kv.kv_heads, head = unit % kv.kv_heads;
      const int64_t from = std::max(first, block * 16);
      const int64_t to = std::min(first + m, block * 16 + 16);
      store_keys(kv, head, k, first, from, to);
      store_values(kv, head, v, first, from, to);
    }
  });
}

// Stores the keys of positions from..to-1, which lie in one block; k begins at position `first`.
void CpuAttention::store_keys(const CpuKv& kv, int64_t head, const float* k, int64_t first,
                              int64_t from, int64_t to) const {
  const int64_t d = kv.head_dim, stride = kv.kv_heads * d;
  const float* key = k + (from - first) * stride + head * d;
  const int64_t slot = from % kv.capacity;
  uint8_t* block = kv.keys_of(head) + slot / 16 * 16 * d * kv.element();  // [d][16 keys]
  const bool whole = to - from == 16;
  for (int64_t j = 0; j < d; j += 16) {
    const int64_t n = std::min<int64_t>(16, d - j);
    float turned[16 * 16];  // [n dims][16 keys]
    uint16_t half[16 * 16];
    if (whole)
      for (int64_t t = 0; t < 16; ++t)
        for (int64_t e = 0; e < n; ++e) turned[e * 16 + t] = key[t * stride + j + e];
    if (whole && kv.f16) {
      kernels_.to_f16(turned, n * 16, reinterpret_cast<uint16_t*>(block) + j * 16);
    } else if (whole) {
      std::memcpy(block + j * 16 * 4, turned, static_cast<size_t>(n) * 16 * 4);
    } else if (kv.f16) {
      auto* out = reinterpret_cast<uint16_t*>(block) + j * 16 + slot % 16;
      for (int64_t t = 0; t < to - from; ++t) {
        kernels_.to_f16(key + t * stride + j, n, half);
        for (int64_t e = 0; e < n; ++e) out[e * 16 + t] = half[e];
      }
    } else {
      auto* out = reinterpret_cast<float*>(block) + j * 16 + slot % 16;
      for (int64_t t = 0; t < to - from; ++t)
        for (int64_t e = 0; e < n; ++e) out[e * 16 + t] = key[t * stride + j + e];
    }
  }
}

void CpuAttention::store_values(const CpuKv& kv, int64_t head, const float* v, int64_t first,
                                int64_t from, int64_t to) const {
  const int64_t d = kv.head_dim, bytes = kv.element();
  for (int64_t t = from; t < to; ++t) {
    const float* value = v + ((t - first) * kv.kv_heads + head) * d;
    uint8_t* out = kv.values_of(head) + t % kv.capacity * 16 * bytes;
    for (int64_t c = 0; c < kv.columns(); ++c) {
      const int64_t n = std::min<int64_t>(16, d - c * 16);
      uint8_t* to_column = out + c * kv.capacity * 16 * bytes;
      if (kv.f16)
        kernels_.to_f16(value + c * 16, n, reinterpret_cast<uint16_t*>(to_column));
      else
        std::memcpy(to_column, value + c * 16, static_cast<size_t>(n) * 4);
    }
  }
}

void CpuAttention::attend(const KvLayer& layer, const float* q, int64_t m, int64_t heads,
                          const AttentionSpan* spans, float* out) {
  const auto& kv = static_cast<const CpuKv&>(layer);
  add_pieces(kv, q, m, heads, spans, out);
  int64_t positions = 0;
  for (int64_t i = 0; i < m; ++i) positions += spans[i].last - spans[i].first + 1;
  const int64_t products = positions * heads * kv.head_dim;
  const auto pieces = static_cast<int64_t>(pieces_.size());
  const int64_t threads = pool_.threads(), rounds = (pieces + threads - 1) / threads;
  // Threads take whole pieces, unless that would leave a quarter of their time unused.
  if (threads > 1 && products >= kStepProducts && pieces * 4 < rounds * threads * 3)
    attend_in_steps();
  else
    attend_whole(products < kSerialProducts ? pieces : 1);
}

void CpuAttention::add_pieces(const CpuKv& kv, const float* q, int64_t m, int64_t heads,
                              const AttentionSpan* spans, float* out) {
  const int64_t d = kv.head_dim, group = heads / kv.kv_heads;
  int64_t longest = 0;
  for (int64_t i = 0; i < m; ++i)
    longest = std::max<int64_t>(longest, spans[i].last - spans[i].first + 1);
  int64_t rows = m * group <= kTogether ? m : std::max<int64_t>(1, kPerPiece / group);
  rows = std::clamp<int64_t>(kMaxWeights / (group * longest), 1, rows);

  const auto n = static_cast<size_t>(m * heads);
  queries_.resize(n);
  results_.resize(n);
  spans_.resize(n);
  sums_.resize(n);
  pieces_.clear();
  piece_floats_ = 0;
  size_t at = 0;
  for (int64_t row = 0; row < m; row += rows)
    for (int64_t kv_head = 0; kv_head < kv.kv_heads; ++kv_head) {
      const int64_t behind = std::min(row + rows, m);
      gemtp_attention a{};
      a.keys = kv.keys_of(kv_head);
      a.values = kv.values_of(kv_head);
      a.kv_f16 = kv.f16;
      a.head_dim = d;
      a.capacity = kv.capacity;
      a.n_q = (behind - row) * group;
      a.q = &queries_[at];
      a.out = &results_[at];
      a.spans = &spans_[at];
      a.sums = &sums_[at];
      int64_t first = spans[row].first, last = spans[row].last;
      for (int64_t i = row; i < behind; ++i) {
        first = std::min<int64_t>(first, spans[i].first);
        last = std::max<int64_t>(last, spans[i].last);
        for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h, ++at) {
          queries_[at] = q + (i * heads + h) * d;
          results_[at] = out + (i * heads + h) * d;
          spans_[at] = {spans[i].first, spans[i].last};
        }
      }
      a.base = first / 16 * 16;
      const int64_t blocks = (last - a.base) / 16 + 1;
      // One block more than needed: rows a power of two apart would compete for few cache lines.
      a.p_stride = (blocks + 1) * 16;
      piece_floats_ = std::max(piece_floats_, a.n_q * a.p_stride);
      pieces_.push_back({a, blocks});
    }
}

// Computes each piece on one thread.
void CpuAttention::attend_whole(int64_t grain) {
  float* weights = weights_.ensure(piece_floats_ * pool_.threads());
  pool_.parallel_for(static_cast<int64_t>(pieces_.size()), grain,
                     [&](int64_t begin, int64_t end, int thread) {
                       for (int64_t i = begin; i < end; ++i) {
                         Piece piece = pieces_[static_cast<size_t>(i)];
                         piece.args.p = weights + thread * piece_floats_;
                         kernels_.attention_scores(&piece.args, 0, piece.blocks);
                         kernels_.attention_weights(&piece.args, 0, piece.args.n_q);
                         kernels_.attention_values(&piece.args, 0, (piece.args.head_dim + 15) / 16);
                       }
                     });
}

// Computes each piece on all threads, step by step; K and V are still read once.
void CpuAttention::attend_in_steps() {
  const auto pieces = static_cast<int64_t>(pieces_.size());
  float* weights = weights_.ensure(piece_floats_ * pieces);
  int64_t blocks = 0, queries = 0;
  for (int64_t i = 0; i < pieces; ++i) {
    Piece& piece = pieces_[static_cast<size_t>(i)];
    piece.args.p = weights + i * piece_floats_;
    blocks = std::max(blocks, piece.blocks);
    queries = std::max(queries, piece.args.n_q);
  }
  const int64_t parts = pool_.threads() * kPiecesPerThread;
  // Cuts the n units of every piece so that there are about `parts` parts in all.
  const auto run = [&](int64_t n, int64_t least, const auto& step) {
    const int64_t size = std::max(least, (n * pieces + parts - 1) / parts);
    const int64_t per_piece = (n + size - 1) / size;
    pool_.parallel_for(pieces * per_piece, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t from = i % per_piece * size;
        step(pieces_[static_cast<size_t>(i / per_piece)], from, std::min(from + size, n));
      }
    });
  };
  run(blocks, 4, [&](const Piece& piece, int64_t begin, int64_t end) {
    kernels_.attention_scores(&piece.args, begin, std::min(end, piece.blocks));
  });
  run(queries, 1, [&](const Piece& piece, int64_t begin, int64_t end) {
    kernels_.attention_weights(&piece.args, begin, std::min(end, piece.args.n_q));
  });
  run((pieces_[0].args.head_dim + 15) / 16, 1, [&](const Piece& piece, int64_t begin, int64_t end) {
    kernels_.attention_values(&piece.args, begin, end);
  });
}

}  // namespace gemtp
