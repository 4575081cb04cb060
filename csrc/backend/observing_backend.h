// A backend that shows what its matrices multiply: another one with an eye on it, which costs those
// nothing who do not use it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/backend.h"

namespace gemtp {

/// Told before a product: m rows of w.cols floats, `stride` apart, that meet the matrix loaded from
/// `source`.
using Observer =
    std::function<void(const WeightSource& source, const float* x, int64_t stride, int64_t m)>;

class ObservingBackend : public Backend {
 public:
  ObservingBackend(std::unique_ptr<Backend> inner, Observer observer);
  ~ObservingBackend() override;

  std::string name() const override { return inner_->name(); }
  int threads() const override { return inner_->threads(); }
  bool stopped() const override { return inner_->stopped(); }
  Buffer alloc(int64_t n) override { return inner_->alloc(n); }
  /// As the inner backend's; a matrix of rows that are listed is not observed.
  std::unique_ptr<Matrix> load_matrix(const WeightSource& source, const std::vector<int32_t>* rows,
                                      const LoadProgress& progress) override;
  AlignedBytes read(const WeightSource& source) override { return inner_->read(source); }
  std::unique_ptr<KvLayer> make_kv(int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                   bool f16) override {
    return inner_->make_kv(kv_heads, head_dim, capacity, f16);
  }

  void matmul(const std::vector<MatmulJob>& jobs) override;
  void gated_matmul(const std::vector<GatedJob>& jobs) override;
  void head(const Matrix& w, const float* x, int64_t m, float cap, float* const* logits,
            BestLogit* best) override;

  void embed(const WeightSource& table, const int32_t* ids, int64_t m, int64_t col, int64_t n,
             float scale, float* y) override {
    inner_->embed(table, ids, m, col, n, scale, y);
  }
  void rms_norm(const float* x, const float* w, int64_t m, int64_t n, float eps,
                float* y) override {
    inner_->rms_norm(x, w, m, n, eps, y);
  }
  void rms_norm_add(const float* x, const float* w, int64_t m, int64_t n, float eps, const float* r,
                    float* y) override {
    inner_->rms_norm_add(x, w, m, n, eps, r, y);
  }
  void gelu_mul(const float* gate, const float* up, int64_t m, int64_t n, float* y) override {
    inner_->gelu_mul(gate, up, m, n, y);
  }
  void scale(const float* x, float s, int64_t m, int64_t n, float* y) override {
    inner_->scale(x, s, m, n, y);
  }
  void softcap(const float* x, int64_t m, int64_t n, float cap, float* y) override {
    inner_->softcap(x, m, n, cap, y);
  }
  void gather(const float* x, const int32_t* rows, int64_t m, int64_t n, float* y) override {
    inner_->gather(x, rows, m, n, y);
  }
  void weighted_sum(const float* x, const int32_t* rows, const float* weights, int64_t m,
                    int64_t terms, int64_t n, float* y) override {
    inner_->weighted_sum(x, rows, weights, m, terms, n, y);
  }
  void head_norm_rope(float* x, const float* w, int64_t m, int64_t heads, int64_t d, float eps,
                      const RopeRows* rope) override {
    inner_->head_norm_rope(x, w, m, heads, d, eps, rope);
  }
  void store_kv(KvLayer& kv, const float* k, const float* v, int64_t first, int64_t m) override {
    inner_->store_kv(kv, k, v, first, m);
  }
  void attention(const KvLayer& kv, const float* q, int64_t m, int64_t heads,
                 const AttentionSpan* spans, float* out) override {
    inner_->attention(kv, q, m, heads, spans, out);
  }

 private:
  void begin_pass(const std::atomic<bool>* stop) override {
    passes_.push_back(std::make_unique<Pass>(*inner_, stop));
  }
  void end_pass() override { passes_.pop_back(); }
  void observe(const Matrix* w, const float* x, int64_t stride, int64_t m) const;

  std::unique_ptr<Backend> inner_;
  Observer observer_;
  std::unordered_map<const Matrix*, WeightSource> sources_;
  std::vector<std::unique_ptr<Pass>> passes_;
};

}  // namespace gemtp
