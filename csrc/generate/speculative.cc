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
  std::optional<DraftRound> round;  // begun once the drafter is asked
  size_t given = 0;                 // rows that it has been given
  for (bool first = true; !full(); first = false) {
    if (text) {
      for (const int32_t token : first ? forced : text->forced()) {
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
    while (given < rows.size()) round->step(rows[given++]);
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
  for (size_t i = 0; i < proposal->sources.size(); ++i) state.history.pop();
}

void Speculation::look_up(int limit, ConstrainedText* text) {
  found_ = lookup_.draft(limit);
  if (text) found_.tokens.resize(static_cast<size_t>(text->allowed(found_.tokens)));
}

// Of what was drafted or looked up, what is to be verified.
void Speculation::settle(Proposal* proposal) {
  drafted_.assign(proposal->rows.begin() + 1, proposal->rows.end());
  const bool lookup = control_.source() == DraftSource::kLookup;
  const std::vector<int32_t>& drafts = lookup ? found_.tokens : drafted_;
  const int n = control_.depth();
  proposal->rows.resize(1);
  proposal->rows.insert(proposal->rows.end(), drafts.begin(), drafts.begin() + n);
  if (lookup) proposal->sources.clear();
  proposal->sources.resize(static_cast<size_t>(n), DraftSource::kLookup);
  proposal->expected_tokens = control_.tokens();
}

Proposal Speculation::propose(DecodeState& state, int limit, const Others& others) {
  const double start = monotonic_seconds();
  Proposal proposal{{state.pending}, {}};
  std::vector<int32_t> forced;
  ConstrainedText* text = draft_ != 0 && limit > 0 ? state.constraint.get() : nullptr;
  if (text) forced = text->forced();
  if (automatic()) {
    look_up(limit, text);
    engine_.depth_estimates().costs.pass_time(start - idle_since_);
    control_.begin(engine_.kv_share(state.sequence->length()), limit,
                   static_cast<int>(found_.tokens.size()), found_.match, others,
                   static_cast<int>(forced.size()));
  }
  const double looked_up = monotonic_seconds();
  const bool drafting = automatic() ? control_.source() != DraftSource::kLookup &&
                                          (control_.more() || !forced.empty())
                                    : draft_ > 0;
  if (drafting) draft(state, automatic() ? limit : std::min(draft_, limit), forced, &proposal);
  idle_since_ = monotonic_seconds();
  proposal.draft_seconds = idle_since_ - (text ? looked_up : start);
  if (automatic()) settle(&proposal);
  return proposal;
}

// The target's choices, as long as they are what was proposed, and one more.
Round Speculation::choose(const Proposal& proposal, const Outputs& outputs, int64_t row,
                          DecodeState& state) {
  Round round;
  round.drafts = proposal.sources;
  const auto drafts = static_cast<int64_t>(round.drafts.size());
  const int64_t p = state.sequence->length() - drafts;  // of the first choice
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
  // Row `last` was the last one run on true tokens; what lies behind it was rejected.
  state.sequence->truncate(p + last);
  state.pending = round.tokens.back();
  const float* h = outputs.hidden(row + last);
  state.hidden.assign(h, h + engine_.config().hidden);
  return round;
}

Round Speculation::first(const Outputs& outputs, int64_t row, DecodeState& state) {
  return choose({}, outputs, row, state);
}

Round Speculation::accept(const Proposal& proposal, const Outputs& outputs, int64_t row,
                          DecodeState& state, int64_t pass_rows, double pass_seconds) {
  const double start = monotonic_seconds();
  Round round = choose(proposal, outputs, row, state);
  idle_since_ = monotonic_seconds();
  if (automatic()) {
    RoundOutcome outcome;
    outcome.draft_seconds = proposal.draft_seconds;
    outcome.verify_seconds = pass_seconds > 0 ? pass_seconds + idle_since_ - start : 0;
    outcome.rows = static_cast<int>(pass_rows);
    outcome.drafter_agreed = agreement(drafted_, round.tokens);
    outcome.drafter_missed = missed(drafted_, round.tokens, outcome.drafter_agreed);
    outcome.lookup_agreed = agreement(found_.tokens, round.tokens);
    outcome.lookup_missed = missed(found_.tokens, round.tokens, outcome.lookup_agreed);
    control_.end(outcome);
  }
  return round;
}

}  // namespace gemtp
