// Rotary position embedding (RoPE, Su et al. 2021) in the half-rotation form: pair i of a head of
// width d is (x_i, x_{i + d/2}) and turns by position * base^(-2i/d) / factor_i.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace gemtp {

class Rope {
 public:
  Rope() = default;
  /// factors: [d/2] divisors of the frequencies ("proportional" RoPE: 1 for the pairs that rotate
  /// and 1e30 for those that don't), or empty for all 1.
  Rope(double base, int64_t head_dim, const std::vector<float>& factors);

  /// Angles of m rows at these positions, computed in double and rounded once. The result points
  /// into this object and holds until the next call.
  RopeRows rows(const int64_t* positions, int64_t m);

 private:
  std::vector<double> frequency_;  // [d/2] radians per position
  std::vector<float> cos_, sin_;   // [m, d/2]
};

}  // namespace gemtp
