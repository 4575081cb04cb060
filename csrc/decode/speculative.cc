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

// Proposes tokens after pending.token, chosen exactly as the target will choose: same function,
// same noise, same history. `limit` of them, or as many as the control asks for; fewer when nothing
// can follow: after an end token, and when the candidates of an ordered head are all banned, by
// bias or suppression (the target, which sees the whole vocabulary, may well have a choice).
void Speculation::propose(const Session& session, const Pending& pending, Chooser& chooser,
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

Round Speculation::run(Session& session, Pending& pending, Chooser& chooser, TokenHistory& history,
                       int limit) {
  const int64_t p = session.length();
  const double start = monotonic_seconds();
  static const Lookup::Draft kNothing;
  const Lookup::Draft* found = &kNothing;
  if (automatic()) {
    found = &lookup_.draft(limit);
    engine_.depth_estimates().costs.pass_time(start - idle_since_);
    control_.begin(engine_.kv_share(p), limit, static_cast<int>(found->tokens.size()),
                   found->match);
  }
  drafts_.clear();
  const bool drafting = automatic() ? control_.more() : draft_ > 0;
  if (drafting)
    propose(session, pending, chooser, history, automatic() ? limit : std::min(draft_, limit));
  const double drafted = monotonic_seconds();

  Round round;
  round.source = automatic()       ? control_.source()
                 : drafts_.empty() ? DraftSource::kNone
                                   : DraftSource::kDrafter;
  const std::vector<int32_t>& source =
      round.source == DraftSource::kLookup ? found->tokens : drafts_;
  round.drafted = automatic() ? control_.depth() : static_cast<int>(drafts_.size());
  std::vector<int32_t> rows{pending.token};
  rows.insert(rows.end(), source.begin(), source.begin() + round.drafted);
  const auto m = static_cast<int64_t>(rows.size());
  session.forward(engine_.target(), rows.data(), m, m, head_output(chooser));

  int64_t row = 0;
  for (;; ++row) {
    const int32_t choice = session.choose(row, chooser, p + 1 + row, history);
    history.push(choice);
    push(choice);
    round.tokens.push_back(choice);
    const bool agreed = row + 1 < m && choice == rows[static_cast<size_t>(row + 1)];
    round.accepted += agreed;
    if (!agreed || is_end(choice)) break;
  }
  // Row `row` was the last one run on true tokens; what lies behind it was rejected.
  session.truncate(p + row + 1);
  pending.token = round.tokens.back();
  const float* h = session.hidden(row);
  pending.hidden.assign(h, h + engine_.config().hidden);
  idle_since_ = monotonic_seconds();

  if (automatic()) {
    RoundOutcome outcome;
    outcome.draft_seconds = drafted - start;
    outcome.verify_seconds = idle_since_ - drafted;
    outcome.drafter_agreed = agreement(drafts_, round.tokens);
    outcome.drafter_missed = missed(drafts_, round.tokens, outcome.drafter_agreed);
    outcome.lookup_agreed = agreement(found->tokens, round.tokens);
    outcome.lookup_missed = missed(found->tokens, round.tokens, outcome.lookup_agreed);
    control_.end(outcome);
  }
  return round;
}

}  // namespace gemtp
