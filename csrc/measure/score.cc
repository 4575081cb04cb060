#include "measure/score.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/numeric.h"
#include "base/thread_pool.h"
#include "choose/distribution.h"
#include "model/kv_cache.h"

namespace gemtp {
namespace {

// Number of rows whose logits exist at a time: enough that the head's weights are seldom read; 34
// MB with Gemma 4's vocabulary.
constexpr int64_t kLogitRows = 32;

double divergence(const Distribution& p, const Distribution& q, int64_t vocab) {
  Lanes sum;
  double x[Lanes::kBlock], ratio[Lanes::kBlock];
  for (int64_t begin = 0; begin < vocab; begin += Lanes::kBlock) {
    const int64_t count = std::min(Lanes::kBlock, vocab - begin);
    for (int64_t i = 0; i < count; ++i) {
      x[i] = p.log_probability(begin + i);
      ratio[i] = x[i] - q.log_probability(begin + i);
    }
    portable_exp(x, count);
    // A token with probability 0 under P adds nothing, whatever its probability under Q.
    for (int64_t i = 0; i < count; ++i) x[i] = x[i] > 0.0 ? x[i] * ratio[i] : 0.0;
    sum.add(x, count);
  }
  return std::max(0.0, sum.total());  // negative only by rounding
}

// Runs a text through a target and provides the logits of the rows that predict ids[first ..), a
// few at a time.
class LogitStream {
 public:
  LogitStream(OpenedModel& model, const std::vector<int32_t>& ids, int64_t first, int64_t chunk,
              const Poll& poll)
      : model_(model),
        ids_(ids),
        poll_(poll),
        first_row_(first - 1),
        rows_(static_cast<int64_t>(ids.size()) - 1),
        chunk_(chunk),
        kv_(model.new_kv(static_cast<int64_t>(ids.size()))),
        most_(std::min(chunk, kLogitRows)) {
    outputs_.hidden = model.backend().mirror<float>(chunk * model.config().hidden);
    outputs_.best = model.backend().mirror<BestLogit>(most_);
    outputs_.logits = model.backend().mirror<float>(most_ * model.config().vocab);
    for (int64_t i = 0; i < most_; ++i)
      to_.push_back(outputs_.logits.device() + i * model.config().vocab);
  }

  /// Computes the next block of logits and returns its number of rows; 0 at the end. The division
  /// into blocks depends only on `first` and `chunk`.
  int64_t next() {
    while (given_ == wanted_) {
      if (kv_.length() == rows_) return 0;
      if (poll_) poll_();
      run_chunk();
    }
    const OpenedModel::Exclusive exclusive(model_);
    const Config& c = model_.config();
    const int64_t rows = std::min(most_, wanted_ - given_);
    const int64_t position = kv_.length() - wanted_ + given_;
    Backend& backend = model_.backend();
    backend.head(*model_.target_weights().head, outputs_.hidden.device() + given_ * c.hidden, rows,
                 c.softcap, to_, outputs_.best.device());
    backend.fetch(outputs_.logits, 0, rows * c.vocab);
    backend.fetch(outputs_.best, 0, rows);
    backend.wait();
    for (int64_t i = 0; i < rows; ++i)
      if (!std::isfinite(best(i).logit))
        throw Error(
            ErrorKind::kModel,
            format("%s: the logits after token %lld of the text are not finite numbers; "
                   "the weights are damaged or too large for float32: convert the model "
                   "again",
                   model_.file().quoted_path().c_str(), static_cast<long long>(position + i + 1)));
    given_ += rows;
    return rows;
  }

  const float* logits(int64_t row) const {
    return outputs_.logits.host() + row * model_.config().vocab;
  }
  const BestLogit& best(int64_t row) const { return outputs_.best[row]; }

 private:
  void run_chunk() {
    const OpenedModel::Exclusive exclusive(model_);
    const int64_t at = kv_.length();
    const int64_t m = std::min(chunk_, rows_ - at);
    wanted_ = std::clamp<int64_t>(at + m - first_row_, 0, m);
    given_ = 0;
    model_.target().forward({&kv_, ids_.data() + at, m, wanted_, HeadOutput::kNone}, outputs_);
  }

  OpenedModel& model_;
  const std::vector<int32_t>& ids_;
  const Poll& poll_;
  int64_t first_row_, rows_, chunk_;
  KvCache kv_;
  int64_t most_;                   // most rows of a block
  TargetOutputs outputs_;          // hidden: [chunk] of the latest pass; others: [most]
  std::vector<Device<float>> to_;  // [most]
  int64_t wanted_ = 0;             // rows of the latest pass with a hidden state
  int64_t given_ = 0;              // those of them whose logits have been provided
};

void check(const OpenedModel& model, const std::vector<int32_t>& ids, int64_t first) {
  model.check_ids(ids, 0);
  if (ids.size() < 2)
    throw Error(
        ErrorKind::kArgument,
        "there is one token, which follows nothing; give two at least, to score the second");
  if (first < 1 || first >= static_cast<int64_t>(ids.size()))
    throw Error(ErrorKind::kArgument,
                format("first is %lld; with %zu tokens it must be between 1, for the first token "
                       "follows nothing, and %zu, to leave a token to score",
                       static_cast<long long>(first), ids.size(), ids.size() - 1));
}

/// Returns of_row(stream, row, token) for every token of ids[first ..), in order; rows run in
/// parallel.
template <class T, class OfRow>
std::vector<T> for_each_row(OpenedModel& model, const std::vector<int32_t>& ids, int64_t first,
                            const Poll& poll, const OfRow& of_row) {
  check(model, ids, first);
  LogitStream stream(model, ids, first, model.options().prefill_chunk, poll);
  ThreadPool pool(model.backend().threads());
  std::vector<T> out(ids.size() - static_cast<size_t>(first));
  const int32_t* given = ids.data() + first;
  T* result = out.data();
  while (const int64_t rows = stream.next()) {
    const ThreadPool::Pass pass(pool);
    pool.parallel_for(rows, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) result[i] = of_row(stream, i, given[i]);
    });
    given += rows;
    result += rows;
  }
  return out;
}

}  // namespace

std::vector<double> score(OpenedModel& model, const std::vector<int32_t>& ids, int64_t first,
                          const Poll& poll) {
  return for_each_row<double>(
      model, ids, first, poll, [&](const LogitStream& stream, int64_t row, int32_t token) {
        return Distribution(stream.logits(row), model.config().vocab, stream.best(row).logit)
            .log_probability(token);
      });
}

std::vector<Logprobs> score_with_likeliest(OpenedModel& model, const std::vector<int32_t>& ids,
                                           int64_t first, int top, const Poll& poll) {
  return for_each_row<Logprobs>(
      model, ids, first, poll, [&](const LogitStream& stream, int64_t row, int32_t token) {
        return logprobs(stream.logits(row), model.config().vocab, token, top);
      });
}

Comparison compare(OpenedModel& p, OpenedModel& q, const std::vector<int32_t>& ids, int64_t first,
                   const Poll& poll) {
  const int64_t vocab = p.config().vocab;
  if (q.config().vocab != vocab)
    throw Error(ErrorKind::kModel,
                format("%s has a vocabulary of %lld tokens and %s one of %lld; only models with "
                       "the same tokens can be compared",
                       p.file().quoted_path().c_str(), static_cast<long long>(vocab),
                       q.file().quoted_path().c_str(), static_cast<long long>(q.config().vocab)));
  check(p, ids, first);
  check(q, ids, first);
  // The chunk is the same for both, so that both provide the same rows at a time.
  const int64_t chunk = std::min(p.options().prefill_chunk, q.options().prefill_chunk);
  LogitStream p_stream(p, ids, first, chunk, poll), q_stream(q, ids, first, chunk, poll);
  ThreadPool pool(std::max(p.backend().threads(), q.backend().threads()));
  const size_t n = ids.size() - static_cast<size_t>(first);
  Comparison out;
  out.log_p.resize(n);
  out.log_q.resize(n);
  out.divergence.resize(n);
  out.same_best.resize(n);
  size_t at = 0;
  while (const int64_t rows = p_stream.next()) {
    const int64_t others = q_stream.next();
    GEMTP_ASSERT(others == rows);
    const ThreadPool::Pass pass(pool);
    pool.parallel_for(rows, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const size_t k = at + static_cast<size_t>(i);
        const int32_t token = ids[static_cast<size_t>(first) + k];
        const Distribution dp(p_stream.logits(i), vocab, p_stream.best(i).logit);
        const Distribution dq(q_stream.logits(i), vocab, q_stream.best(i).logit);
        out.log_p[k] = dp.log_probability(token);
        out.log_q[k] = dq.log_probability(token);
        out.divergence[k] = divergence(dp, dq, vocab);
        out.same_best[k] = p_stream.best(i).index == q_stream.best(i).index;
      }
    });
    at += static_cast<size_t>(rows);
  }
  return out;
}

}  // namespace gemtp
