// The clusters of an ordered head that a step multiplies, and their tokens by id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gemtp {

class ClusterOrder {
 public:
  /// The `top` best of n scores, of equal ones the first.
  void choose(const float* scores, int64_t n, int64_t top);
  /// The i-th of them, best first.
  int32_t operator[](int64_t i) const { return order_[static_cast<size_t>(i)]; }

  /// tokens: [clusters][each]; logits: [top][each], of the clusters chosen. Both ascending by id.
  void sort(const int32_t* tokens, int64_t each, const float* logits, int32_t* ids, float* sorted);

 private:
  int64_t top_ = 0;
  std::vector<int32_t> order_;     // [clusters], the chosen first
  std::vector<uint64_t> present_;  // a bit for each token, all 0 between calls
  std::vector<int32_t> before_;    // tokens chosen below the first of each of its words
};

}  // namespace gemtp
