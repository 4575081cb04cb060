// Products with packed matrices on the CPU: quantizes activations, splits output rows over the
// pool, and works on results while they are in the cache (gelu, softcap, the best logit).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_memory.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/packed_form.h"
#include "base/thread_pool.h"

namespace gemtp {

/// A matrix in the tile layout of kernels.h.
class CpuMatrix : public Matrix {
 public:
  std::shared_ptr<uint8_t> data;  // from the backend's arena
  int64_t tile_bytes = 0;
  int64_t tiles() const { return (rows + GEMTP_TILE - 1) / GEMTP_TILE; }
};

class CpuMatmul {
 public:
  CpuMatmul(const gemtp_kernels& kernels, ThreadPool& pool);

  // These work like matmul(), gated_matmul() and head() of Backend.
  void products(const std::vector<MatmulJob>& jobs);
  void gated(const std::vector<GatedJob>& jobs);
  void head(const Matrix& w, const float* x, int64_t m, float cap,
            std::span<const Device<float>> logits, BestLogit* best);

 private:
  // Activation rows of one or more jobs in the form that the kernels read.
  struct Input {
    const float* x;
    int64_t x_stride, m, k;
    bool quantize;
    gemtp_q8_rows q;
  };

  // Returns the index in inputs_ of the rows that w multiplies; jobs with equal rows share them.
  size_t add_input(const Matrix& w, const float* x, int64_t x_stride, int64_t m);
  void quantize_inputs();
  template <class Fn>
  void for_each_piece(const std::vector<int64_t>& first_tile, int64_t bytes, const Fn& fn);
  gemtp_matmul call(const CpuMatrix& w, const Input& input, int64_t begin, int64_t end, float* y,
                    int64_t y_stride) const;
  void run(const Matrix& w, const gemtp_matmul& call) const;
  int64_t tiles_per_group(int64_t tile_bytes, int64_t m) const;

  const gemtp_kernels& kernels_;
  ThreadPool& pool_;
  std::vector<Input> inputs_;
  Scratch<int8_t> quants_;
  Scratch<float> scales_;
  Scratch<int32_t> biases_, pairs_;
  Scratch<float> sums_;
  std::vector<Scratch<float>> results_;  // per thread: results of a group of tiles
  std::vector<BestLogit> best_;          // [groups of tiles][m]
};

}  // namespace gemtp
