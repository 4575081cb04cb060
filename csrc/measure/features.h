// What a drafter's head sees along a text: the states from which ordered heads are made and judged.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/opened_model.h"
#include "measure/score.h"

namespace gemtp {

/// At every position of ids but the first, the token there is the pending one of a round of `steps`
/// draft steps, which go on with the drafter's own best token. [n - 1, steps, drafter's hidden]:
/// what each step multiplies the head with. Error{kArgument} without a drafter, for fewer than two
/// ids, an id outside the vocabulary or steps outside 1 .. kMaxDraft; Error{kContext} for more
/// tokens than the context holds.
std::vector<float> draft_features(OpenedModel& model, const std::vector<int32_t>& ids, int steps,
                                  const Poll& poll = {});

}  // namespace gemtp
