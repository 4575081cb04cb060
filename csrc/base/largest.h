// The largest of a run of logits, and whether any of them is NaN or +infinity, which undamaged
// weights never produce.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace gemtp {

struct Largest {
  float value;   // NaNs are ignored; -infinity if there is nothing else
  bool damaged;  // a value is NaN or +infinity
};

inline bool damaged_logit(float x) { return !(x <= std::numeric_limits<float>::max()); }

inline Largest largest(const float* x, int64_t n) {
  // Comparisons behave like maxps (a NaN is passed over), in four chains to hide its latency.
  float a = -std::numeric_limits<float>::infinity(), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    a = x[i] > a ? x[i] : a;
    b = x[i + 1] > b ? x[i + 1] : b;
    c = x[i + 2] > c ? x[i + 2] : c;
    d = x[i + 3] > d ? x[i + 3] : d;
  }
  for (; i < n; ++i) a = x[i] > a ? x[i] : a;
  int damaged = 0;
  for (i = 0; i < n; ++i) damaged |= damaged_logit(x[i]);
  return {std::max(std::max(a, b), std::max(c, d)), damaged != 0};
}

}  // namespace gemtp
