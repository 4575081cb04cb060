// The inputs of a drafter's head along a text, from which ordered heads are made and evaluated.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/opened_model.h"
#include "measure/score.h"

namespace gemtp {

/// Runs, at every position of ids but the first, a round of `steps` draft steps whose pending token
/// is the token there; each step continues with the drafter's best token. Returns the input of the
/// head at each step, [n - 1, steps, drafter's hidden]. Throws Error{kArgument} without a drafter,
/// for fewer than two ids, an id outside the vocabulary or steps outside 1 .. kMaxDraft, and
/// Error{kContext} for more tokens than the context holds.
std::vector<float> draft_features(OpenedModel& model, const std::vector<int32_t>& ids, int steps,
                                  const Poll& poll = {});

}  // namespace gemtp
