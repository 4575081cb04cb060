// What a target makes of a text that is given: the log-probability of each of its tokens, and how
// far the next-token distributions of two models are apart. Temperature 1, no token suppressed.
//
// Computed in double, with sums in a fixed order and the elementary functions of base/numeric.h:
// the same logits give the same bits everywhere. Logits exist for a few rows at a time only.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/opened_model.h"

namespace gemtp {

/// Called between passes, with no model held; may throw, which gives up.
using Poll = std::function<void()>;

/// Natural logarithms of the probabilities of ids[first .. n), each given all tokens before it:
/// [n - first].
/// Error{kArgument} unless 1 <= first < n, and for ids outside the vocabulary; Error{kContext} for
/// more tokens than the context holds; Error{kModel} where logits are not finite.
std::vector<double> score(OpenedModel& model, const std::vector<int32_t>& ids, int64_t first,
                          const Poll& poll = {});

/// P and Q, the distributions of two models, at every scored token: [n - first] each.
struct Comparison {
  std::vector<double> log_p, log_q;  // of the given token
  std::vector<double> divergence;    // KL(P || Q) = sum over tokens of P (log P - log Q), in nats
  std::vector<uint8_t> same_best;    // 1 where the likeliest token is the same
};

/// Errors as score(), and Error{kModel} for vocabularies of different sizes.
Comparison compare(OpenedModel& p, OpenedModel& q, const std::vector<int32_t>& ids, int64_t first,
                   const Poll& poll = {});

}  // namespace gemtp
