// The draft-verify round.
#pragma once

#include <cstdint>
#include <vector>

#include "decode/choose.h"
#include "decode/session.h"
#include "model/drafter.h"
#include "model/target.h"

namespace gemtp {

/// Where a sequence stands between rounds: `token` is chosen but not yet run through the target,
/// and `hidden` [backbone] is the target's hidden state (after the final norm) at the position
/// before it.
struct Pending {
  int32_t token = -1;
  std::vector<float> hidden;
};

struct Round {
  std::vector<int32_t>
      tokens;  // chosen by the target, in order; the last one is the new pending token
  int drafted = 0;
  int accepted = 0;  // drafts that were the target's choice: tokens[0 .. accepted)
};

/// One round behind session.length() positions: the drafter (null: none) proposes `depth` tokens
/// after pending.token, one target pass verifies them, and the rows are walked while choice ==
/// draft. Tokens in `ends` stop the walk. Updates session, pending and history (which holds every
/// token chosen so far, pending.token included).
Round run_round(Target& target, Drafter* drafter, Session& session, Pending& pending,
                Chooser& chooser, TokenHistory& history, int depth,
                const std::vector<int32_t>& ends);

}  // namespace gemtp
