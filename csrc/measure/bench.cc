#include "measure/bench.h"

#include "base/clock.h"
#include "base/error.h"
#include "engine/draft_round.h"

namespace gemtp {
namespace {

// Returns tokens spread over the vocabulary, so that embedding rows come from all parts of the
// file, as in a text.
std::vector<int32_t> arbitrary_tokens(int64_t n, int64_t vocab) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  uint64_t x = 1;
  for (int32_t& id : ids) {
    x = x * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator
    id = static_cast<int32_t>((x >> 33) % static_cast<uint64_t>(vocab));
  }
  return ids;
}

}  // namespace

Bench::Bench(std::shared_ptr<Engine> engine, bool plain_head)
    : engine_(std::move(engine)),
      model_(engine_->model()),
      outputs_(model_.config(), model_.backend(), kMaxDraft + 1),
      ids_(arbitrary_tokens(model_.context(), model_.config().vocab)),
      greedy_({}, {}, static_cast<int32_t>(model_.config().vocab)) {
  const OpenedModel::Exclusive exclusive(model_);
  sequence_ = std::make_unique<Sequence>(model_.new_kv(model_.context()), model_.context());
  if (!plain_head || !ordered_head()) return;
  const std::shared_ptr<const GgufFile>& file = model_.drafter_weights().file;
  plain_config_ = model_.drafter().config().with_plain_head();
  plain_weights_ = load_weights(file, plain_config_, model_.backend());
  plain_ = std::make_unique<Drafter>(plain_config_, plain_weights_, model_.config(),
                                     model_.target_weights(), model_.backend());
}

bool Bench::ordered_head() const {
  return model_.has_drafter() && model_.drafter().config().centroids > 0;
}

int64_t Bench::kv_bytes(int64_t context) const {
  return kv_read_bytes(model_.config(), context, model_.options().kv_f16);
}

void Bench::need_room(int64_t context, int64_t rows) const {
  const auto n = [](int64_t v) { return static_cast<long long>(v); };
  if (context < 0 || rows < 0 || context > model_.context() - rows)
    throw Error(ErrorKind::kContext,
                format("%lld rows behind %lld positions do not fit into a context of %lld", n(rows),
                       n(context), n(model_.context())));
}

void Bench::need_noise() {
  if (!noisy_) sequence_->fill_with_noise(model_.backends());
  noisy_ = true;
}

double Bench::prefill(int64_t tokens) {
  if (tokens < 1) throw Error(ErrorKind::kArgument, "a prompt has at least one token");
  need_room(0, tokens);
  const OpenedModel::Exclusive exclusive(model_);
  sequence_->jump(0);
  const double start = monotonic_seconds();
  sequence_->prefill(model_.target(), ids_.data(), tokens, model_.options().prefill_chunk,
                     head_output(greedy_), outputs_);
  outputs_.choose(0, greedy_, tokens, TokenHistory());
  return monotonic_seconds() - start;
}

double Bench::verify(int64_t context, int64_t rows) {
  if (rows < 1 || rows > kMaxDraft + 1)
    throw Error(ErrorKind::kArgument, format("a pass verifies between 1 and %d rows, not %lld",
                                             kMaxDraft + 1, static_cast<long long>(rows)));
  need_room(context, rows);
  const OpenedModel::Exclusive exclusive(model_);
  need_noise();
  sequence_->jump(context);
  const double start = monotonic_seconds();
  sequence_->forward(model_.target(), ids_.data() + context, rows, rows, head_output(greedy_),
                     outputs_);
  for (int64_t i = 0; i < rows; ++i) outputs_.choose(i, greedy_, context + 1 + i, TokenHistory());
  return monotonic_seconds() - start;
}

double Bench::draft(int64_t context, int steps, bool plain_head) {
  if (!model_.has_drafter())
    throw Error(ErrorKind::kArgument, "no drafter is loaded; open the model with one");
  if (plain_head && !plain_)
    throw Error(ErrorKind::kArgument, "the drafter has no second head to time");
  if (steps < 1 || steps > kMaxDraft)
    throw Error(ErrorKind::kArgument,
                format("steps is %d; it must be between 1 and %d", steps, kMaxDraft));
  if (context < 1)
    throw Error(ErrorKind::kArgument, "drafting needs at least one position of context");
  need_room(context, 1);
  const OpenedModel::Exclusive exclusive(model_);
  need_noise();
  sequence_->jump(context);
  Drafter& drafter = plain_head ? *plain_ : model_.drafter();
  std::vector<float> hidden(static_cast<size_t>(model_.config().hidden), 0.5f);
  const double start = monotonic_seconds();
  DraftRound round(drafter, sequence_->kv(), context, hidden.data());
  int32_t token = ids_[static_cast<size_t>(context)];
  for (int i = 0; i < steps; ++i) {
    round.step(token);
    token = round.choose(greedy_, TokenHistory());
  }
  return monotonic_seconds() - start;
}

}  // namespace gemtp
