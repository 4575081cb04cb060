#include "generate/generation.h"

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"

namespace gemtp {
namespace {

std::vector<int32_t> end_tokens(const OpenedModel& model, const GenerationParams& params) {
  if (params.ignore_eos || !model.tokenizer()) return {};
  return model.tokenizer()->end_tokens();
}

std::vector<int32_t> suppressed(const OpenedModel& model) {
  return model.tokenizer() ? model.tokenizer()->suppressed() : std::vector<int32_t>{};
}

void check(const OpenedModel& model, const GenerationParams& params) {
  check_options(params);
  if (params.draft > 0 && !model.has_drafter())
    throw Error(ErrorKind::kArgument,
                format("draft is %d but no drafter is loaded; open the model with one, or pass "
                       "\"auto\" or 0",
                       params.draft));
  if (!params.stop.empty()) model.need_tokenizer();
}

GenerationParams with_seed(GenerationParams params) {
  if (params.sampling.seed == kRandomSeed) params.sampling.seed = draw_seed();
  return params;
}

}  // namespace

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "unfinished";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "";
}

Generation::Generation(std::shared_ptr<Engine> engine, std::vector<int32_t> prompt,
                       GenerationParams params, std::unique_ptr<Sequence>&& sequence)
    : engine_(std::move(engine)),
      prompt_(std::move(prompt)),
      params_(with_seed(std::move(params))),
      state_{nullptr,
             {params_.sampling, suppressed(engine_->model()),
              static_cast<int32_t>(engine_->model().config().vocab)},
             TokenHistory(params_.sampling.penalty_last_n),
             end_tokens(engine_->model(), params_)},
      stop_(params_.stop),
      speculation_(*engine_, params_.draft) {
  check(model(), params_);
  if (params_.max_tokens < 0) params_.max_tokens = model().context();
  stats_.seed = params_.sampling.seed;
  stats_.device = model().backend().device();
  state_.chooser.set_processor(params_.logits_processor);
  model().check_ids(prompt_, 1);
  if (model().tokenizer()) decoder_ = std::make_unique<StreamDecoder>(*model().tokenizer());
  for (int32_t id : prompt_) {
    state_.history.push(id);
    speculation_.push(id);
  }
  if (params_.constraint) {
    state_.constraint =
        std::make_unique<ConstrainedText>(params_.constraint, model().config().vocab);
    state_.history.constrain(state_.constraint.get());
  }
  stats_.prompt_tokens = static_cast<int64_t>(prompt_.size());
  if (params_.max_tokens == 0) {
    finish_ = FinishReason::kLength;
    return;
  }
  if (sequence)
    begin_with(std::move(sequence));
  else if (params_.wait)
    guest_.emplace(engine_->sequences());
  else
    begin_with(engine_->sequences().take(prompt_));
}

void Generation::begin_with(std::unique_ptr<Sequence> sequence) {
  state_.sequence = std::move(sequence);
  state_.sequence->truncate(state_.sequence->reusable(prompt_));
  stats_.cached_tokens = prompt_done_ = state_.sequence->length();
}

Generation::~Generation() {
  engine_->scheduler().leave(*this);
  if (state_.sequence) engine_->sequences().give_back(std::move(state_.sequence));
}

std::vector<Emitted> Generation::step(const std::function<void()>& poll) {
  std::vector<Emitted> out;
  if (failure_) std::rethrow_exception(failure_);
  if (done()) return out;
  double& seconds = prefilled_ ? stats_.decode_seconds : stats_.prompt_seconds;
  round_ = {};
  try {
    if (!state_.sequence) begin_with(guest_->take(prompt_, poll));
    const double start = monotonic_seconds();
    engine_->scheduler().run(*this);
    seconds += monotonic_seconds() - start;
    emit(round_, out);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled)
      finish_ = FinishReason::kCancelled;
    else
      failure_ = std::current_exception();
    throw;
  } catch (...) {
    failure_ = std::current_exception();
    throw;
  }
  if (done()) engine_->scheduler().leave(*this);
  return out;
}

void Generation::cancel() {
  engine_->scheduler().cancel(*this);
  if (guest_) guest_->cancel();
}

std::unique_ptr<Sequence> Generation::release() {
  if (under_way()) finish_ = FinishReason::kCancelled;
  return std::move(state_.sequence);
}

SequenceRows Generation::prepare(const Allotment& allotment) {
  if (prefilled_) {
    const int limit = static_cast<int>(std::min<int64_t>(draft_limit(), allotment.rows - 1));
    proposal_ = speculation_.propose(state_, limit, allotment.others);
    const auto m = static_cast<int64_t>(proposal_.rows.size());
    return rows_ = state_.sequence->rows(proposal_.rows.data(), m, m, head());
  }
  const int64_t at = state_.sequence->length(), left = static_cast<int64_t>(prompt_.size()) - at;
  const int64_t m = std::min(allotment.rows, left);
  return rows_ = state_.sequence->rows(prompt_.data() + at, m, m == left ? 1 : 0, head());
}

void Generation::complete(const Outputs& outputs, int64_t row, int64_t rows, double seconds) {
  state_.sequence->appended(rows_.ids, rows_.m);
  if (prefilled_) {
    const int64_t before = state_.sequence->length() - rows_.m;
    try {
      round_ = speculation_.accept(proposal_, outputs, row, state_, rows, seconds);
    } catch (...) {
      state_.sequence->truncate(before);
      throw;
    }
    take_logprobs(outputs, row);
    count(round_);
    return;
  }
  prompt_done_ = state_.sequence->length();
  if (rows_.want == 0) return;
  round_ = speculation_.first(outputs, row, state_);
  prefilled_ = true;
  take_logprobs(outputs, row);
}

// Takes the log-probabilities of the round's tokens, which were chosen from the rows from `row` on.
void Generation::take_logprobs(const Outputs& outputs, int64_t row) {
  logprobs_.clear();
  if (params_.logprobs < 0) return;
  for (const int32_t id : round_.tokens)
    logprobs_.push_back(
        logprobs(outputs.logits(row++), model().config().vocab, id, params_.logprobs));
}

void Generation::count(const Round& round) {
  ++stats_.rounds;
  stats_.drafted += round.drafted();
  stats_.accepted += round.accepted;
  for (int i = 0; i < round.drafted(); ++i) {
    const DraftSource source = round.drafts[static_cast<size_t>(i)];
    const bool accepted = i < round.accepted;
    if (source == DraftSource::kLookup) {
      ++stats_.lookup_drafted;
      stats_.lookup_accepted += accepted;
    } else if (source == DraftSource::kGrammar) {
      ++stats_.grammar_drafted;
      stats_.grammar_accepted += accepted;
    }
  }
  const auto add = [](std::vector<int64_t>& v, int i) {
    if (v.size() <= static_cast<size_t>(i)) v.resize(static_cast<size_t>(i) + 1);
    ++v[static_cast<size_t>(i)];
  };
  add(stats_.depth_histogram, round.drafted());
  for (int i = 0; i < round.drafted(); ++i) add(stats_.drafted_at, i);
  for (int i = 0; i < round.accepted; ++i) add(stats_.accepted_at, i);
  stats_.accepted_at.resize(stats_.drafted_at.size());
}

// Number of drafts that can still become tokens: a round yields at most one token more than it
// drafts.
int Generation::draft_limit() const {
  const int64_t left = params_.max_tokens - stats_.tokens;
  const int64_t room = model().context() - state_.sequence->length();
  return static_cast<int>(std::max<int64_t>(0, std::min({int64_t{kMaxDraft}, left - 1, room - 1})));
}

void Generation::emit(const Round& round, std::vector<Emitted>& out) {
  for (size_t i = 0; i < round.tokens.size() && !done(); ++i) {
    const int32_t id = round.tokens[i];
    if (state_.is_end(id)) {
      finish_ = FinishReason::kStop;
      break;
    }
    ++stats_.tokens;
    const bool drafted = static_cast<int>(i) < round.accepted;
    Emitted e{id, drafted ? round.drafts[i] : DraftSource::kNone, "", {}};
    if (!logprobs_.empty()) e.logprobs = logprobs_[i];
    if (decoder_) e.text = release_text(decoder_->push(id));
    out.push_back(std::move(e));
    if (done()) return;  // at a stop string the text held back is dropped
    if (round.complete && i + 1 == round.tokens.size())
      finish_ = FinishReason::kStop;
    else if (stats_.tokens == params_.max_tokens)
      finish_ = FinishReason::kLength;
    else if (stats_.prompt_tokens + stats_.tokens == model().context())
      finish_ = FinishReason::kContext;
  }
  if (!done() || !decoder_) return;
  std::string rest = release_text(decoder_->finish());
  rest += stop_.finish();
  (out.empty() ? tail_ : out.back().text) += rest;
}

// Adds a piece and returns the text that can be shown; a stop string ends the generation.
std::string Generation::release_text(const std::string& piece) {
  std::string shown = stop_.push(piece);
  if (stop_.found()) finish_ = FinishReason::kStop;
  return shown;
}

}  // namespace gemtp
