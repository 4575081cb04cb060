#include "backend/cpu/cpu_routing.h"

#include <algorithm>
#include <numeric>

#include "backend/cpu/scalar_math.h"

namespace gemtp {

CpuRouting::CpuRouting(const RoutingSizes& sizes, Storage& storage) : sizes_(sizes) {
  const int64_t slots = sizes.rows * sizes.used;
  const auto n = static_cast<size_t>(slots);
  expert_.resize(n);
  weight_.resize(n);
  place_.resize(n);
  row_.resize(n);
  in_ = storage.alloc(slots * sizes.hidden);
  gated_ = storage.alloc(slots * sizes.ffn);
  out_ = storage.alloc(slots * sizes.hidden);
}

void CpuRouting::route(const float* scores, const float* scale, int64_t m) {
  for (int64_t i = 0; i < m; ++i)
    choose(scores + i * sizes_.experts, scale, expert_.data() + i * sizes_.used,
           weight_.data() + i * sizes_.used);
  group(m);
}

// Chooses the experts of one row.
void CpuRouting::choose(const float* scores, const float* scale, int32_t* chosen,
                        float* weight) const {
  int64_t n = 0;
  for (int32_t e = 0; e < sizes_.experts; ++e) {
    if (n == sizes_.used && !(scores[e] > scores[chosen[n - 1]])) continue;
    int64_t at = n < sizes_.used ? n++ : n - 1;
    for (; at > 0 && scores[e] > scores[chosen[at - 1]]; --at) chosen[at] = chosen[at - 1];
    chosen[at] = e;
  }
  // The softmax's denominator cancels out in the renormalisation. Odds are added in order of rank.
  float total = 0;
  for (int64_t i = 0; i < n; ++i) {
    weight[i] = gemtp_exp(scores[chosen[i]] - scores[chosen[0]]);
    total += weight[i];
  }
  for (int64_t i = 0; i < n; ++i) weight[i] = gemtp_flush(weight[i] / total * scale[chosen[i]]);
}

void CpuRouting::group(int64_t m) {
  const int64_t slots = m * sizes_.used;
  first_place_.assign(static_cast<size_t>(sizes_.experts) + 1, 0);
  for (int64_t i = 0; i < slots; ++i)
    ++first_place_[static_cast<size_t>(expert_[static_cast<size_t>(i)]) + 1];
  std::partial_sum(first_place_.begin(), first_place_.end(), first_place_.begin());
  for (int64_t i = 0; i < slots; ++i) {
    const auto slot = static_cast<size_t>(i);
    const int32_t place = first_place_[static_cast<size_t>(expert_[slot])]++;
    place_[slot] = place;
    row_[static_cast<size_t>(place)] = static_cast<int32_t>(i / sizes_.used);
  }
  // Each entry is now the first place of the next expert.
  std::rotate(first_place_.begin(), first_place_.end() - 1, first_place_.end());
  first_place_[0] = 0;
}

void CpuRouting::make_jobs(const ExpertMatrices& w, Device<const float> x) {
  const int64_t h = sizes_.hidden, f = sizes_.ffn;
  gated_jobs_.clear();
  out_jobs_.clear();
  copied_rows_.clear();
  for (int64_t e = 0; e < sizes_.experts; ++e) {
    const int32_t* first = first_place_.data() + e;
    const int64_t place = first[0], n = first[1] - place;
    if (n == 0) continue;
    const int32_t* row = row_.data() + place;
    Device<const float> in = x + *row * h;  // where a single row can stay
    if (n > 1) {
      in = copies() + static_cast<int64_t>(copied_rows_.size()) * h;
      copied_rows_.insert(copied_rows_.end(), row, row + n);
    }
    const Device<float> gated = gated_.get() + place * f;
    gated_jobs_.push_back({&(*w.gate)[e], &(*w.up)[e], in, h, n, gated, f});
    out_jobs_.push_back({&(*w.down)[e], gated, f, n, out_.get() + place * h, h});
  }
}

}  // namespace gemtp
