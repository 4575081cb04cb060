#include "generate/speculative.h"

#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "engine/draft_round.h"

namespace gemtp {

bool DecodeState::is_end(int32_t token) const {
  return std::binary_search(ends.begin(), ends.end(), token);
}

// Drafts tokens after the pending one: those that the grammar forces, and otherwise the drafter's,
// chosen exactly like the target's: with the same function, noise and history. Drafts `limit`
// tokens, or as many as the policy asks for. There are fewer if nothing can follow: after an end,
// or if bias, suppression or grammar ban all candidates of an ordered head (the target, with the
// whole vocabulary, may still have a choice).
void Speculation::draft(DecodeState& state, int limit, const std::vector<int32_t>& forced,
                        Proposal* proposal) {
  ConstrainedText* text = state.constraint.get();
  std::vector<int32_t>& rows = proposal->rows;
  const auto add = [&](int32_t token, DraftSource source) {
    state.history.push(token);
    rows.push_back(token);
    proposal->sources.push_back(source);
  };
  const auto full = [&] { return static_cast<int>(rows.size()) > limit; };
  std::optional<DraftRound> round;  // begun when the drafter is first needed
  size_t given = 0;                 // number of rows the drafter has run
  // As many steps as in the last round, if the tokens between them are known to be the largest.
  const bool largest = !text && state.chooser.takes_largest();
  const int expected = largest ? std::min(limit, drafted_) : 1;
  for (bool first = true; !full(); first = false) {
    if (text) {
      for (const int32_t token : first ? forced : text->forced()) {
        if (full()) break;
        add(token, DraftSource::kGrammar);
        policy_->forced();
      }
      if (full() || text->complete()) break;
    }
    if (!policy_->more()) break;
    if (!round)
      round.emplace(engine_.model().drafter(), state.sequence->kv(), state.sequence->length(),
                    state.hidden.data(), expected);
    while (given < rows.size()) round->step(rows[given++]);
    int32_t token;
    try {
      token = round->choose(state.chooser, state.history);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kArgument) throw;
      break;
    }
    policy_->drafted(*round, token, state);
    add(token, DraftSource::kDrafter);
    if (state.is_end(token)) break;
  }
  for (size_t i = 0; i < proposal->sources.size(); ++i) state.history.pop();
  if (!proposal->sources.empty()) drafted_ = static_cast<int>(proposal->sources.size());
}

Proposal Speculation::propose(DecodeState& state, int most, const Others& others) {
  const double start = monotonic_seconds();
  const int limit = policy_->limit(most);
  Proposal proposal{{state.pending}, {}};
  std::vector<int32_t> forced;
  ConstrainedText* text = limit > 0 ? state.constraint.get() : nullptr;
  if (text) forced = text->forced();
  const bool drafting =
      policy_->begin(state, limit, static_cast<int>(forced.size()), others, start - idle_since_);
  const double begun = monotonic_seconds();
  if (drafting) draft(state, limit, forced, &proposal);
  idle_since_ = monotonic_seconds();
  proposal.draft_seconds = idle_since_ - (text ? begun : start);
  policy_->settle(&proposal);
  return proposal;
}

// Returns the target's choices as long as they equal the proposal, and one more.
Round Speculation::choose(const Proposal& proposal, const Outputs& outputs, int64_t row,
                          DecodeState& state) {
  Round round;
  round.drafts = proposal.sources;
  const auto drafts = static_cast<int64_t>(round.drafts.size());
  const int64_t p = state.sequence->length() - drafts;  // position of the first choice
  int64_t last = 0;
  for (;; ++last) {
    const int32_t choice = outputs.choose(row + last, state.chooser, p + last, state.history);
    state.history.push(choice);
    push(choice);
    round.tokens.push_back(choice);
    const bool agreed = last < drafts && choice == proposal.rows[static_cast<size_t>(last + 1)];
    round.accepted += agreed;
    if (state.is_end(choice)) break;
    round.complete = state.constraint && state.constraint->complete();
    if (!agreed || round.complete) break;
  }
  // Row `last` was the last row of true tokens; the rows after it were rejected.
  state.sequence->truncate(p + last);
  state.pending = round.tokens.back();
  const float* h = outputs.hidden(row + last);
  state.hidden.assign(h, h + engine_.model().config().hidden);
  return round;
}

Round Speculation::accept(const Proposal& proposal, const Outputs& outputs, int64_t row,
                          DecodeState& state, int64_t pass_rows, double pass_seconds) {
  const double start = monotonic_seconds();
  Round round = choose(proposal, outputs, row, state);
  idle_since_ = monotonic_seconds();
  policy_->end(proposal, round, pass_rows,
               pass_seconds > 0 ? pass_seconds + idle_since_ - start : 0);
  return round;
}

}  // namespace gemtp
