#include "choose/distribution.h"

#include <algorithm>

#include "base/largest.h"
#include "base/numeric.h"

namespace gemtp {

void Lanes::add(const double* x, int64_t count) {
  static_assert(kBlock % kLanes == 0);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane];
  for (int lane = 0; i < count; ++i, ++lane) sums[lane] += x[i];
}

double Lanes::total() const {
  double sum = 0.0;
  for (const double lane : sums) sum += lane;
  return sum;
}

Distribution::Distribution(const float* logits, int64_t vocab, double max)
    : logits_(logits), max_(max) {
  Lanes sum;
  double x[Lanes::kBlock];
  for (int64_t begin = 0; begin < vocab; begin += Lanes::kBlock) {
    const int64_t count = std::min(Lanes::kBlock, vocab - begin);
    for (int64_t i = 0; i < count; ++i) x[i] = logits[begin + i] - max_;
    portable_exp(x, count);
    sum.add(x, count);
  }
  log_sum_ = portable_log(sum.total());
}

namespace {

struct Candidate {
  float logit;
  int32_t id;

  bool operator<(const Candidate& other) const {
    return logit > other.logit || (logit == other.logit && id < other.id);
  }
};

/// Returns the first n tokens in that order.
std::vector<Candidate> likeliest(const float* logits, int64_t vocab, int64_t n) {
  std::vector<Candidate> best;  // a heap with the last of them on top
  for (int64_t begin = 0; begin < vocab; begin += Lanes::kBlock) {
    const int64_t end = std::min(begin + Lanes::kBlock, vocab);
    const bool full = static_cast<int64_t>(best.size()) == n;
    if (full && largest(logits + begin, end - begin).value <= best.front().logit) continue;
    for (int64_t i = begin; i < end; ++i) {
      const Candidate c{logits[i], static_cast<int32_t>(i)};
      if (static_cast<int64_t>(best.size()) == n) {
        if (!(c < best.front())) continue;
        std::pop_heap(best.begin(), best.end());
        best.pop_back();
      }
      best.push_back(c);
      std::push_heap(best.begin(), best.end());
    }
  }
  std::sort_heap(best.begin(), best.end());
  return best;
}

}  // namespace

Logprobs logprobs(const float* logits, int64_t vocab, int32_t chosen, int top) {
  const std::vector<Candidate> best = likeliest(logits, vocab, std::max(top, 1));
  const Distribution distribution(logits, vocab, best.front().logit);
  Logprobs out;
  out.chosen = distribution.log_probability(chosen);
  for (int i = 0; i < std::min(top, static_cast<int>(best.size())); ++i) {
    const int32_t id = best[static_cast<size_t>(i)].id;
    out.top.push_back({id, distribution.log_probability(id)});
  }
  return out;
}

}  // namespace gemtp
