// All outputs of target and drafter along a list of tokens, for evaluations and tests.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"

namespace gemtp {

/// Writes the target's logits after each of ids, [ids, vocab], to `out`. Throws Error{kArgument,
/// kContext} like OpenedModel::check_ids().
void trace_logits(OpenedModel& model, const std::vector<int32_t>& ids, float* out);

/// The drafter's proposal after some tokens, with its outputs at each step.
struct DraftTrace {
  std::vector<int32_t> tokens;  // [k]
  std::vector<float> logits;    // [k, vocab]; -inf for tokens that are no candidates
  std::vector<float> hidden;    // [k, backbone]: the h that each step passes on
};

/// Returns k greedy drafts after ids. At least two ids are needed: ids.back() is the pending token
/// of a round at position ids.size() - 1. Throws Error{kArgument} without a drafter and for k
/// outside 1 .. kMaxDraft.
DraftTrace trace_drafts(Engine& engine, const std::vector<int32_t>& ids, int k);

}  // namespace gemtp
