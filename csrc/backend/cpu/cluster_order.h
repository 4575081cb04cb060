// Selects the clusters of an ordered head that a draft step multiplies, and orders their tokens by
// id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gemtp {

class ClusterOrder {
 public:
  /// Selects the `top` best of n scores; of equal scores the first.
  void choose(const float* scores, int64_t n, int64_t top);
  /// Returns the i-th selected cluster, best first.
  int32_t operator[](int64_t i) const { return order_[static_cast<size_t>(i)]; }

  /// tokens: [clusters][each]; logits: [top][each], of the selected clusters. Both outputs are
  /// ascending by id.
  void sort(const int32_t* tokens, int64_t each, const float* logits, int32_t* ids, float* sorted);

 private:
  int64_t top_ = 0;
  std::vector<int32_t> order_;     // [clusters], the selected ones first
  std::vector<uint64_t> present_;  // a bit for each token; all are 0 between calls
  std::vector<int32_t>
      before_;  // for each word of present_: number of tokens in the words before it
};

}  // namespace gemtp
