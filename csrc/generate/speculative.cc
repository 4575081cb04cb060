#include "generate/speculative.h"

#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "engine/draft_round.h"

namespace gemtp {
namespace {

// How many of the first proposals were chosen too.
int agreement(const std::vector<int32_t>& proposed, const std::vector<int32_t>& chosen) {
  const auto n = static_cast<int64_t>(std::min(proposed.size(), chosen.size()));
  return static_cast<int>(
      std::mismatch(proposed.begin(), proposed.begin() + n, chosen.begin()).first -
      proposed.begin());
}

bool missed(const std::vector<int32_t>& proposed, const std::vector<int32_t>& chosen, int agreed) {
  return static_cast<size_t>(agreed) < std::min(proposed.size(), chosen.size());
}

}  // namespace

bool DecodeState::is_end(int32_t token) const {
  return std::binary_search(ends.begin(), ends.end(), token);
}

Speculation::Speculation(Engine& engine, int draft)
    : engine_(engine),
      draft_(draft),
      control_(engine.depth_estimates(), engine.has_drafter()),
      idle_since_(monotonic_seconds()) {}

void Speculation::push(int32_t token) {
  if (automatic()) lookup_.push(token);
}

// Drafts tokens after the pending one: what the grammar forces, and otherwise the drafter's, chosen
// exactly as the target will choose: same function, same noise, same history. `limit` of them, or
// as many as the control asks for; fewer when nothing can follow: after an end, and when the
// candidates of an ordered head are all banned, by bias, suppression or grammar (the target, which
// sees the whole vocabulary, may well have a choice).
void Speculation::draft(DecodeState& state, int limit) {
  ConstrainedText* text = state.constraint.get();
  const auto add = [&](int32_t token, DraftSource source) {
    state.history.push(token);
    drafts_.push_back(token);
    made_by_.push_back(source);
  };
  std::optional<DraftRound> round;  // begun once the drafter is asked
  size_t given = 0;                 // to it, of the pending token and the drafts
  const auto full = [&] { return static_cast<int>(drafts_.size()) >= limit; };
  for (bool first = true; !full(); first = false) {
    if (text) {
      for (const int32_t token : first ? forced_ : text->forced()) {
        if (full()) break;
        add(token, DraftSource::kGrammar);
        if (automatic()) control_.forced();
      }
      if (full() || text->complete()) break;
    }
    if (!engine_.has_drafter() || (automatic() && !control_.more())) break;
    if (!round)
      round.emplace(engine_.drafter(), state.sequence->kv(), state.sequence->length(),
                    state.hidden);
    for (; given <= drafts_.size(); ++given)
      round->step(given ? drafts_[given - 1] : state.pending);
    int32_t token;
    try {
      token = round->choose(state.chooser, state.history);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kArgument) throw;
      break;
    }
    if (automatic()) control_.drafted(round->probability(state.chooser, token, state.history));
    add(token, DraftSource::kDrafter);
    if (state.is_end(token)) break;
  }
  for (size_t i = 0; i < drafts_.size(); ++i) state.history.pop();
}

void Speculation::look_up(int limit, ConstrainedText* text) {
  found_ = lookup_.draft(limit);
  if (text) found_.tokens.resize(static_cast<size_t>(text->allowed(found_.tokens)));
}

void Speculation::propose(DecodeState& state, int limit, const Others& others) {
  const double start = monotonic_seconds();
  drafts_.clear();
  made_by_.clear();
  forced_.clear();
  found_ = {};
  ConstrainedText* text = draft_ != 0 && limit > 0 ? state.constraint.get() : nullptr;
  if (text) forced_ = text->forced();
  if (automatic()) {
    look_up(limit, text);
    engine_.depth_estimates().costs.pass_time(start - idle_since_);
    control_.begin(engine_.kv_share(state.sequence->length()), limit,
                   static_cast<int>(found_.tokens.size()), found_.match, others,
                   static_cast<int>(forced_.size()));
  }
  const double looked_up = monotonic_seconds();
  const bool drafting = automatic() ? control_.source() != DraftSource::kLookup &&
                                          (control_.more() || !forced_.empty())
                                    : draft_ > 0;
  if (drafting) draft(state, automatic() ? limit : std::min(draft_, limit));
  idle_since_ = monotonic_seconds();
  draft_seconds_ = idle_since_ - (text ? looked_up : start);

  source_ = automatic()       ? control_.source()
            : drafts_.empty() ? DraftSource::kNone
                              : DraftSource::kDrafter;
  const std::vector<int32_t>& source = source_ == DraftSource::kLookup ? found_.tokens : drafts_;
  const int n = automatic() ? control_.depth() : static_cast<int>(drafts_.size());
  rows_ = {state.pending};
  rows_.insert(rows_.end(), source.begin(), source.begin() + n);
}

Round Speculation::accept(const Outputs& outputs, int64_t row, DecodeState& state,
                          int64_t pass_rows, double pass_seconds) {
  const double start = monotonic_seconds();
  const auto m = static_cast<int64_t>(rows_.size());
  const int64_t p = state.sequence->length() - m;
  Round round;
  if (source_ == DraftSource::kLookup)
    round.drafts.assign(static_cast<size_t>(m - 1), source_);
  else
    round.drafts.assign(made_by_.begin(), made_by_.begin() + (m - 1));
  int64_t last = 0;
  for (;; ++last) {
    const int32_t choice = outputs.choose(row + last, state.chooser, p + 1 + last, state.history);
    state.history.push(choice);
    push(choice);
    round.tokens.push_back(choice);
    const bool agreed = last + 1 < m && choice == rows_[static_cast<size_t>(last + 1)];
    round.accepted += agreed;
    if (state.is_end(choice)) break;
    round.complete = state.constraint && state.constraint->complete();
    if (!agreed || round.complete) break;
  }
  // Row `last` was the last one run on true tokens; what lies behind it was rejected.
  state.sequence->truncate(p + last + 1);
  state.pending = round.tokens.back();
  const float* h = outputs.hidden(row + last);
  state.hidden.assign(h, h + engine_.config().hidden);
  idle_since_ = monotonic_seconds();

  if (automatic()) {
    RoundOutcome outcome;
    outcome.draft_seconds = draft_seconds_;
    outcome.verify_seconds = pass_seconds > 0 ? pass_seconds + idle_since_ - start : 0;
    outcome.rows = static_cast<int>(pass_rows);
    outcome.drafter_agreed = agreement(drafts_, round.tokens);
    outcome.drafter_missed = missed(drafts_, round.tokens, outcome.drafter_agreed);
    outcome.lookup_agreed = agreement(found_.tokens, round.tokens);
    outcome.lookup_missed = missed(found_.tokens, round.tokens, outcome.lookup_agreed);
    control_.end(outcome);
  }
  return round;
}

}  // namespace gemtp
