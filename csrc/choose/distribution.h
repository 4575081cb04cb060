// A row of logits as the distribution over tokens that it stands for: temperature 1, no token
// suppressed.
//
// In double, with sums in a fixed order and the elementary functions of base/numeric.h: the same
// logits give the same bits everywhere.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace gemtp {

class Distribution {
 public:
  /// logits: [vocab], used as long as this lives; max: the largest.
  Distribution(const float* logits, int64_t vocab, double max);

  /// Its natural logarithm.
  double log_probability(int64_t token) const { return (logits_[token] - max_) - log_sum_; }

 private:
  const float* logits_;
  double max_;
  double log_sum_;  // of e^(logit - max)
};

/// The order of a sum over the vocabulary, which is walked in blocks: partial sums by token id
/// modulo kLanes, then those in order.
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

/// Of a chosen token, and of the likeliest ones, likeliest first, equal ones by id.
struct Logprobs {
  double chosen = std::numeric_limits<double>::quiet_NaN();
  std::vector<TokenLogprob> top;
};

/// Most tokens of Logprobs::top.
constexpr int kMaxTopLogprobs = 20;

/// logits: [vocab], none NaN or +infinity, one finite. top: how many of the likeliest.
Logprobs logprobs(const float* logits, int64_t vocab, int32_t chosen, int top);

}  // namespace gemtp
