// Routes rows to experts and groups them by expert, so that each expert's weights are read once.
//
// A slot is a row with one of its experts; the slots of a row are consecutive, best expert first. A
// place is the index of a slot after grouping by expert.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace gemtp {

class CpuRouting : public Routing {
 public:
  CpuRouting(const RoutingSizes& sizes, Storage& storage);

  const RoutingSizes& sizes() const { return sizes_; }

  /// Works like Backend::route().
  void route(const float* scores, const float* scale, int64_t m);

  /// The products of the experts with x [m, hidden]. Rows that share an expert must first be copied
  /// to copies(), so that they are consecutive.
  void make_jobs(const ExpertMatrices& w, Device<const float> x);
  const std::vector<int32_t>& copied_rows() const { return copied_rows_; }
  Device<float> copies() const { return in_.get(); }
  const std::vector<GatedJob>& gated_jobs() const { return gated_jobs_; }
  const std::vector<MatmulJob>& out_jobs() const { return out_jobs_; }

  float weight(int64_t slot) const { return weight_[static_cast<size_t>(slot)]; }
  /// The slot's row of the results of out_jobs(), [hidden].
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
  std::vector<int32_t> first_place_;  // [experts + 1]: first place of each expert, and the end
  std::vector<int32_t> copied_rows_;
  Buffer in_, gated_, out_;           // [places, hidden], [places, ffn], [places, hidden]
  std::vector<GatedJob> gated_jobs_;  // kept between calls, like out_jobs_, for their memory
  std::vector<MatmulJob> out_jobs_;
};

}  // namespace gemtp
