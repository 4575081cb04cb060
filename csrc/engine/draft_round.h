// The draft steps of one round.
#pragma once

#include <cstdint>

#include "choose/choose.h"
#include "model/drafter.h"

namespace gemtp {

/// At most one exists per drafter at a time, within an Exclusive.
class DraftRound {
 public:
  /// Begins like Drafter::begin_round(). p: position of the first token; hidden: the target's
  /// hidden state of position p - 1; expected: steps that are expected.
  DraftRound(Drafter& drafter, const KvCache& kv, int64_t p, const float* hidden,
             int64_t expected = 1)
      : drafter_(drafter), position_(p) {
    drafter.begin_round(kv, p, hidden, expected);
  }

  /// Runs the drafter on the next token of the round.
  void step(int32_t token) {
    drafter_.step(token);
    ++position_;
  }
  /// choose() returns the drafter's choice for the next token; probability() returns how likely the
  /// drafter considers a token there.
  int32_t choose(Chooser& chooser, const TokenHistory& history) const {
    return chooser.choose(drafter_.logits(), drafter_.candidates(), drafter_.candidate_count(),
                          position_, history);
  }
  double probability(Chooser& chooser, int32_t token, const TokenHistory& history) const {
    return chooser.probability(drafter_.logits(), drafter_.candidates(), drafter_.candidate_count(),
                               token, history);
  }

 private:
  Drafter& drafter_;
  int64_t position_;  // position of the next token
};

}  // namespace gemtp
