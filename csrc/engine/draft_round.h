// The draft steps of one round.
#pragma once

#include <cstdint>

#include "choose/choose.h"
#include "model/drafter.h"

namespace gemtp {

/// One at a time for a drafter, in an Exclusive.
class DraftRound {
 public:
  /// As Drafter::begin_round(). hidden: the target's before position p, where the first token is.
  DraftRound(Drafter& drafter, const KvCache& kv, int64_t p, const float* hidden)
      : drafter_(drafter), position_(p) {
    drafter.begin_round(kv, p, hidden);
  }

  /// Gives the drafter the next token of the round.
  void step(int32_t token) {
    drafter_.step(token);
    ++position_;
  }
  /// The drafter's token behind those that it has been given, and how sure it is of one.
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
  int64_t position_;  // of the next token
};

}  // namespace gemtp
