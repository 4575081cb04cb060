// Rotary position embedding (RoPE, Su et al. 2021) in the half-rotation form: pair i of a head of
// width d is (x_i, x_{i + d/2}) and rotates by position * base^(-2i/d) / factor_i.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/pass_rows.h"

namespace gemtp {

class Rope {
 public:
  Rope() = default;
  /// factors: [d/2] divisors of the frequencies, or empty for all 1. "Proportional" RoPE has 1 for
  /// the pairs that rotate and 1e30 for the others.
  Rope(double base, int64_t head_dim, const std::vector<float>& factors);

  int64_t half() const { return static_cast<int64_t>(frequency_.size()); }

  /// Writes the cosines and sines for m rows at these positions, computed in double and rounded
  /// once, to the first m rows of `to`.
  void write_angles(const int32_t* positions, int64_t m, const RopeAngles& to) const;

 private:
  std::vector<double> frequency_;  // [d/2] radians per position
};

}  // namespace gemtp
