#include "measure/activation_sums.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "model/kv_cache.h"

namespace gemtp {
namespace {

constexpr int64_t kLongest = 65536;  // most rows of a pass

}  // namespace

ActivationSums::ActivationSums(const std::string& path, int64_t context,
                               const EngineOptions& options)
    : model_(open(path, context, options)),
      outputs_{model_->backend().mirror<float>(context * model_->config().hidden), {}, {}} {
  const Split<Backend> backends = model_->backends();
  for (Backend* backend : {&backends.device, &backends.host})
    backend->observe([this](const WeightSource& source, const float* x, int64_t stride, int64_t m) {
      observe(source, x, stride, m);
    });
}

std::unique_ptr<OpenedModel> ActivationSums::open(const std::string& path, int64_t context,
                                                  EngineOptions options) {
  options.context = options.prefill_chunk = context;  // a text is one pass
  ModelFiles files = ModelFiles::open(path, "");
  const int64_t longest = std::min(files.target_config.context, kLongest);
  if (context < 1 || context > longest)
    throw Error(ErrorKind::kArgument,
                format("the context is %lld; with this model it must be between 1 and %lld tokens",
                       static_cast<long long>(context), static_cast<long long>(longest)));
  options.check();
  return std::make_unique<OpenedModel>(std::move(files), options);
}

void ActivationSums::add(const std::vector<int32_t>& ids) {
  const auto n = static_cast<int64_t>(ids.size());
  if (n < 1 || n > model_->context())
    throw Error(ErrorKind::kArgument,
                format("a text of %lld tokens; it must have 1 to %lld", static_cast<long long>(n),
                       static_cast<long long>(model_->context())));
  for (const int32_t id : ids)
    if (id < 0 || id >= model_->config().vocab)
      throw Error(ErrorKind::kArgument, format("token id %d is outside the vocabulary of %lld", id,
                                               static_cast<long long>(model_->config().vocab)));
  const OpenedModel::Exclusive exclusive(*model_);
  KvCache kv = model_->new_kv(model_->context());
  // All hidden states are requested, so every row goes through every layer. Logits are not needed.
  model_->target().forward({&kv, ids.data(), n, n, HeadOutput::kNone}, outputs_);
}

void ActivationSums::observe(const WeightSource& source, const float* x, int64_t stride,
                             int64_t m) {
  if (source.name.rfind("blk.", 0) != 0) return;
  const Tensor* tensor = model_->file().find_tensor(source.name);
  if (!tensor || tensor->shape.size() < 2) return;
  const int64_t rows = tensor->shape[1];
  const int64_t first = static_cast<int64_t>(source.offset - tensor->offset) / source.row_bytes();
  if (first % rows != 0) return;  // another matrix of the tensor, with the same input
  const auto matrix = static_cast<size_t>(first / rows);
  const auto matrices = static_cast<size_t>(tensor->elements() / (rows * source.cols));
  const auto cols = static_cast<size_t>(source.cols);
  Entry& e = entries_[source.name];
  if (e.counts.empty()) {
    e.counts.assign(matrices, 0);
    e.squares.assign(matrices * cols, 0.0);
  }
  e.counts[matrix] += m;
  double* sums = e.squares.data() + matrix * cols;
  for (int64_t i = 0; i < m; ++i) {
    const float* row = x + i * stride;
    for (size_t j = 0; j < cols; ++j) sums[j] += static_cast<double>(row[j]) * row[j];
  }
}

}  // namespace gemtp
