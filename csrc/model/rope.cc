#include "model/rope.h"

#include "backend/cpu/scalar_math.h"
#include "base/error.h"
#include "base/numeric.h"

namespace gemtp {
namespace {

// Rounds to float and flushes to zero like the operands of the kernels.
float flushed(double x) { return gemtp_flush(static_cast<float>(x)); }

}  // namespace

Rope::Rope(double base, int64_t head_dim, const std::vector<float>& factors) {
  const int64_t half = head_dim / 2;
  GEMTP_ASSERT(factors.empty() || static_cast<int64_t>(factors.size()) == half);
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    const double factor = factors.empty() ? 1.0 : factors[static_cast<size_t>(i)];
    frequency_.push_back(portable_pow(base, exponent) / factor);
  }
}

void Rope::write_angles(const int32_t* positions, int64_t m, const RopeAngles& to) const {
  int64_t at = 0;
  for (int64_t row = 0; row < m; ++row) {
    const double position = static_cast<double>(positions[row]);
    for (const double frequency : frequency_) {
      double s, c;
      portable_sincos(position * frequency, &s, &c);
      to.cos[at] = flushed(c);
      to.sin[at++] = flushed(s);
    }
  }
}

}  // namespace gemtp
