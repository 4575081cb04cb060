// Rows given to experts, and grouped by them, so that each expert's weights are read once.
//
// A slot is a row and one of its experts: the slots of a row follow each other, best expert first.
// A place is a slot among those grouped by expert.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace gemtp {

class CpuRouting : public Routing {
 public:
  CpuRouting(const RoutingSizes& sizes, Storage& storage);

  const RoutingSizes& sizes() const { return sizes_; }

  /// As Backend::route().
  void route(const float* scores, const float* scale, int64_t m);

  /// The products that the experts consist of, with x [m, hidden]. Rows that are not alone with
  /// their expert are to be copied to copies() first, side by side.
  void make_jobs(const ExpertMatrices& w, Device<const float> x);
  const std::vector<int32_t>& copied_rows() const { return copied_rows_; }
  Device<float> copies() const { return in_.get(); }
  const std::vector<GatedJob>& gated_jobs() const { return gated_jobs_; }
  const std::vector<MatmulJob>& out_jobs() const { return out_jobs_; }

  float weight(int64_t slot) const { return weight_[static_cast<size_t>(slot)]; }
  /// What out_jobs() give, [hidden].
  Device<const float> output(int64_t slot) const {
    return out_.get() + place_[static_cast<size_t>(slot)] * sizes_.hidden;
  }

 private:
  void choose(const float* scores, const float* scale, int32_t* chosen, float* weight) const;
  void group(int64_t m);

  const RoutingSizes sizes_;
  std::vector<int32_t> expert_;       // [slots]
  std::vector<float> weight_;         // [slots]
  std::vector<int32_t> place_;        // [slots]
  std::vector<int32_t> row_;          // [places]
  std::vector<int32_t> first_place_;  // [experts + 1] of each expert; behind the last one's
  std::vector<int32_t> copied_rows_;
  Buffer in_, gated_, out_;           // [places, hidden], [places, ffn], [places, hidden]
  std::vector<GatedJob> gated_jobs_;  // kept between calls, like out_jobs_, for their memory
  std::vector<MatmulJob> out_jobs_;
};

}  // namespace gemtp
