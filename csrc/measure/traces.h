// What target and drafter give along a list of tokens, number by number: for evaluations and tests.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"

namespace gemtp {

/// The target's logits after each of ids, [ids, vocab] to `out`. Error{kArgument, kContext} as
/// OpenedModel::check_ids().
void trace_logits(OpenedModel& model, const std::vector<int32_t>& ids, float* out);

/// What the drafter proposed after some tokens, with its own outputs at each step.
struct DraftTrace {
  std::vector<int32_t> tokens;  // [k]
  std::vector<float> logits;    // [k, vocab]; -inf for tokens out of the running
  std::vector<float> hidden;    // [k, backbone]: the h each step hands on
};

/// Greedy drafts after ids (at least two: ids.back() is the pending token of a round at position
/// ids.size() - 1). Error{kArgument} without a drafter and for k outside 1 .. kMaxDraft.
DraftTrace trace_drafts(Engine& engine, const std::vector<int32_t>& ids, int k);

}  // namespace gemtp
