#include "backend/observing_backend.h"

#include <utility>

namespace gemtp {

ObservingBackend::ObservingBackend(std::unique_ptr<Backend> inner, Observer observer)
    : inner_(std::move(inner)), observer_(std::move(observer)) {}

ObservingBackend::~ObservingBackend() = default;

std::unique_ptr<Matrix> ObservingBackend::load_matrix(const WeightSource& source,
                                                      const std::vector<int32_t>* rows,
                                                      const LoadProgress& progress) {
  std::unique_ptr<Matrix> m = inner_->load_matrix(source, rows, progress);
  if (!rows) sources_[m.get()] = source;
  return m;
}

void ObservingBackend::matmul(const std::vector<MatmulJob>& jobs) {
  for (const MatmulJob& job : jobs) observe(job.w, job.x, job.x_stride, job.m);
  inner_->matmul(jobs);
}

void ObservingBackend::gated_matmul(const std::vector<GatedJob>& jobs) {
  for (const GatedJob& job : jobs)
    for (const Matrix* w : {job.gate, job.up}) observe(w, job.x, job.x_stride, job.m);
  inner_->gated_matmul(jobs);
}

void ObservingBackend::head(const Matrix& w, const float* x, int64_t m, float cap,
                            float* const* logits, BestLogit* best) {
  observe(&w, x, w.cols, m);
  inner_->head(w, x, m, cap, logits, best);
}

void ObservingBackend::observe(const Matrix* w, const float* x, int64_t stride, int64_t m) const {
  const auto found = sources_.find(w);
  if (found != sources_.end()) observer_(found->second, x, stride, m);
}

}  // namespace gemtp
