// K/V of one layer on the CPU, and attention over it, split over the thread pool.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_memory.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/tiled_kv.h"
#include "base/thread_pool.h"

namespace gemtp {

class CpuKv : public TiledKv {
 public:
  Bytes keys, values;
  uint8_t* keys_of(int64_t head) const { return keys.get() + head * key_bytes(); }
  uint8_t* values_of(int64_t head) const { return values.get() + head * value_bytes(); }

  void get_block(int64_t b, uint8_t* to) const override;
  void put_block(int64_t b, const uint8_t* from) override;
};

class CpuAttention {
 public:
  CpuAttention(const gemtp_kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // These work like make_kv(), store_kv() and attention() of Backend.
  std::unique_ptr<KvLayer> make_kv(int64_t kv_heads, int64_t head_dim, int64_t capacity, bool f16);
  void store(KvLayer& kv, const float* k, const float* v, int64_t first, int64_t m);
  void attend(const KvLayer& kv, const float* q, int64_t m, int64_t heads,
              const AttentionSpan* spans, float* out);

 private:
  // Queries of some rows for one K/V head.
  struct Piece {
    gemtp_attention args;
    int64_t blocks;  // number of blocks of positions, from args.base on
  };

  void store_keys(const CpuKv& kv, int64_t head, const float* k, int64_t first, int64_t from,
                  int64_t to) const;
  void store_values(const CpuKv& kv, int64_t head, const float* v, int64_t first, int64_t from,
                    int64_t to) const;
  void add_pieces(const CpuKv& kv, const float* q, int64_t m, int64_t heads,
                  const AttentionSpan* spans, float* out);
  void attend_whole(int64_t grain);
  void attend_in_steps();

  const gemtp_kernels& kernels_;
  ThreadPool& pool_;
  std::vector<Piece> pieces_;
  // For all queries, piece by piece.
  std::vector<const float*> queries_;
  std::vector<float*> results_;
  std::vector<gemtp_span> spans_;
  std::vector<float> sums_;
  int64_t piece_floats_ = 0;  // number of weights of the largest piece
  Scratch<float> weights_;
};

}  // namespace gemtp
