#include "decode/speculative.h"

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"

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

const Lookup::Draft Speculation::kNothing;

Speculation::Speculation(Engine& engine, int draft, std::vector<int32_t> ends)
    : engine_(engine),
      draft_(draft),
      ends_(std::move(ends)),
      control_(engine.depth_estimates(), engine.has_drafter()),
      idle_since_(monotonic_seconds()) {}

void Speculation::push(int32_t token) {
  if (automatic()) lookup_.push(token);
}

bool Speculation::is_end(int32_t token) const {
  return std::binary_search(ends_.begin(), ends_.end(), token);
}

// Drafts tokens after pending.token, chosen exactly as the target will choose: same function,
// same noise, same history. `limit` of them, or as many as the control asks for; fewer when nothing
// can follow: after an end token, and when the candidates of an ordered head are all banned, by
// bias or suppression (the target, which sees the whole vocabulary, may well have a choice).
void Speculation::draft(const Session& session, const Pending& pending, Chooser& chooser,
                        TokenHistory& history, int limit) {
  const int64_t p = session.length();
  Drafter& drafter = engine_.drafter();
  std::vector<float> h = pending.hidden;
  int32_t token = pending.token;
  drafter.begin_round(session.kv(), p);
  while (static_cast<int>(drafts_.size()) < limit && (!automatic() || control_.more())) {
    drafter.step(token, h.data(), h.data());
    const auto position = p + 1 + static_cast<int64_t>(drafts_.size());
    const int64_t n = drafter.candidate_count();
    try {
      token = chooser.choose(drafter.logits(), drafter.candidates(), n, position, history);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kArgument) throw;
      break;
    }
    history.push(token);
    drafts_.push_back(token);
    if (automatic())
      control_.drafted(chooser.probability(drafter.logits(), drafter.candidates(), n, token));
    if (is_end(token)) break;
  }
  for (size_t i = 0; i < drafts_.size(); ++i) history.pop();
}

void Speculation::propose(const Session& session, const Pending& pending, Chooser& chooser,
                          TokenHistory& history, int limit, const Company& company) {
  const double start = monotonic_seconds();
  found_ = &kNothing;
  if (automatic()) {
    found_ = &lookup_.draft(limit);
    engine_.depth_estimates().costs.pass_time(start - idle_since_);
    control_.begin(engine_.kv_share(session.length()), limit,
                   static_cast<int>(found_->tokens.size()), found_->match, company);
  }
  drafts_.clear();
  const bool drafting = automatic() ? control_.more() : draft_ > 0;
  if (drafting)
    draft(session, pending, chooser, history, automatic() ? limit : std::min(draft_, limit));
  idle_since_ = monotonic_seconds();
  draft_seconds_ = idle_since_ - start;

  source_ = automatic()       ? control_.source()
            : drafts_.empty() ? DraftSource::kNone
                              : DraftSource::kDrafter;
  const std::vector<int32_t>& source = source_ == DraftSource::kLookup ? found_->tokens : drafts_;
  const int n = automatic() ? control_.depth() : static_cast<int>(drafts_.size());
  rows_ = {pending.token};
  rows_.insert(rows_.end(), source.begin(), source.begin() + n);
}

Round Speculation::accept(const Outputs& outputs, int64_t row, Session& session, Pending& pending,
                          Chooser& chooser, TokenHistory& history, int64_t pass_rows,
                          double pass_seconds) {
  const double start = monotonic_seconds();
  const auto m = static_cast<int64_t>(rows_.size());
  const int64_t p = session.length() - m;
  Round round;
  round.source = source_;
  round.drafted = static_cast<int>(m) - 1;
  int64_t last = 0;
  for (;; ++last) {
    const int32_t choice = outputs.choose(row + last, chooser, p + 1 + last, history);
    history.push(choice);
    push(choice);
    round.tokens.push_back(choice);
    const bool agreed = last + 1 < m && choice == rows_[static_cast<size_t>(last + 1)];
    round.accepted += agreed;
    if (!agreed || is_end(choice)) break;
  }
  // Row `last` was the last one run on true tokens; what lies behind it was rejected.
  session.truncate(p + last + 1);
  pending.token = round.tokens.back();
  const float* h = outputs.hidden(row + last);
  pending.hidden.assign(h, h + engine_.config().hidden);
  idle_since_ = monotonic_seconds();

  if (automatic()) {
    RoundOutcome outcome;
    outcome.draft_seconds = draft_seconds_;
    outcome.verify_seconds = pass_seconds > 0 ? pass_seconds + idle_since_ - start : 0;
    outcome.rows = static_cast<int>(pass_rows);
    outcome.drafter_agreed = agreement(drafts_, round.tokens);
    outcome.drafter_missed = missed(drafts_, round.tokens, outcome.drafter_agreed);
    outcome.lookup_agreed = agreement(found_->tokens, round.tokens);
    outcome.lookup_missed = missed(found_->tokens, round.tokens, outcome.lookup_agreed);
    control_.end(outcome);
  }
  return round;
}

}  // namespace gemtp
