// The distribution over tokens that a row of logits stands for, at temperature 1 and with no token
// suppressed.
//
// All arithmetic is in double, with sums in a fixed order and the elementary functions of
// base/numeric.h, so the same logits give the same bits everywhere.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace gemtp {

class Distribution {
 public:
  /// logits: [vocab], must outlive this object; max: the largest logit.
  Distribution(const float* logits, int64_t vocab, double max);

  /// Natural logarithm of the token's probability.
  double log_probability(int64_t token) const { return (logits_[token] - max_) - log_sum_; }

 private:
  const float* logits_;
  double max_;
  double log_sum_;  // log of the sum of e^(logit - max)
};

/// Fixes the order of a sum over the vocabulary, which is walked in blocks: partial sums by token
/// id modulo kLanes, which are then added in order.
struct Lanes {
  static constexpr int kLanes = 8;
  static constexpr int64_t kBlock = 256;
  double sums[kLanes] = {};

  void add(const double* x, int64_t count);
  double total() const;
};

struct TokenLogprob {
  int32_t id = -1;
  double logprob = std::numeric_limits<double>::quiet_NaN();
};

/// Log-probabilities of a chosen token and of the likeliest tokens, likeliest first, equal ones by
/// id.
struct Logprobs {
  double chosen = std::numeric_limits<double>::quiet_NaN();
  std::vector<TokenLogprob> top;
};

/// Upper limit on the number of tokens in Logprobs::top.
constexpr int kMaxTopLogprobs = 20;

/// logits: [vocab], none NaN or +infinity, at least one finite. top: number of the likeliest tokens
/// to return.
Logprobs logprobs(const float* logits, int64_t vocab, int32_t chosen, int top);

}  // namespace gemtp
