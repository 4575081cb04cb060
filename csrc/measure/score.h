// Scores of a given text: the log-probability of each of its tokens for a target, and the
// divergence of the next-token distributions of two models. Temperature 1, no token suppressed.
//
// All arithmetic is in double, with sums in a fixed order and the elementary functions of
// base/numeric.h, so the same logits give the same bits everywhere. Logits exist only for a few
// rows at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "choose/distribution.h"
#include "engine/opened_model.h"

namespace gemtp {

/// Called between passes, without an Exclusive; an exception from it ends the work.
using Poll = std::function<void()>;

/// Natural logarithms of the probabilities of ids[first .. n), each given all tokens before it:
/// [n - first].
/// Throws Error{kArgument} unless 1 <= first < n, and for ids outside the vocabulary;
/// Error{kContext} for more tokens than the context holds; Error{kModel} if logits are not finite.
std::vector<double> score(OpenedModel& model, const std::vector<int32_t>& ids, int64_t first,
                          const Poll& poll = {});

/// score(), with the `top` likeliest tokens in the place of each one.
std::vector<Logprobs> score_with_likeliest(OpenedModel& model, const std::vector<int32_t>& ids,
                                           int64_t first, int top, const Poll& poll = {});

/// P and Q, the distributions of two models, at every scored token: [n - first] each.
struct Comparison {
  std::vector<double> log_p, log_q;  // log-probabilities of the given token
  std::vector<double> divergence;    // KL(P || Q) = sum over tokens of P (log P - log Q), in nats
  std::vector<uint8_t> same_best;    // 1 if the likeliest token is the same
};

/// Throws like score(), and Error{kModel} for vocabularies of different sizes.
Comparison compare(OpenedModel& p, OpenedModel& q, const std::vector<int32_t>& ids, int64_t first,
                   const Poll& poll = {});

}  // namespace gemtp
