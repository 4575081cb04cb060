// Time for measurements.
#pragma once

#include <chrono>

namespace gemtp {

/// Seconds since an arbitrary moment; never decreases.
inline double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace gemtp
