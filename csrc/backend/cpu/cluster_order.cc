#include "backend/cpu/cluster_order.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <numeric>

namespace gemtp {

void ClusterOrder::choose(const float* scores, int64_t n, int64_t top) {
  top_ = top;
  order_.resize(static_cast<size_t>(n));
  std::iota(order_.begin(), order_.end(), 0);
  std::partial_sort(order_.begin(), order_.begin() + top, order_.end(),
                    [scores](int32_t a, int32_t b) {
                      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
                    });
}

// The ids are a small set of small integers, so a bitmap of them fits the first-level cache and
// yields the number of smaller ids for each.
void ClusterOrder::sort(const int32_t* tokens, int64_t each, const float* logits, int32_t* ids,
                        float* sorted) {
  const auto words = (order_.size() * static_cast<size_t>(each) + 63) / 64;
  if (present_.size() < words) {
    present_.resize(words);
    before_.resize(words);
  }
  const auto for_each_token = [&](const auto& fn) {
    for (int64_t i = 0; i < top_; ++i)
      for (int64_t j = 0; j < each; ++j) {
        const auto id = static_cast<size_t>(tokens[(*this)[i] * each + j]);
        fn(id, id / 64, uint64_t{1} << (id % 64), i * each + j);
      }
  };
  for_each_token([&](size_t, size_t word, uint64_t bit, int64_t) { present_[word] |= bit; });
  int32_t n = 0;
  for (size_t word = 0; word < words; ++word) {
    before_[word] = n;
    n += std::popcount(present_[word]);
  }
  for_each_token([&](size_t id, size_t word, uint64_t bit, int64_t at) {
    const int32_t rank = before_[word] + std::popcount(present_[word] & (bit - 1));
    ids[rank] = static_cast<int32_t>(id);
    sorted[rank] = logits[at];
  });
  for_each_token([&](size_t, size_t word, uint64_t, int64_t) { present_[word] = 0; });
}

}  // namespace gemtp
