#include "base/core_budget.h"

#include <algorithm>

#include "base/cpu_info.h"

namespace gemtp {
namespace {

constexpr int kShift = 32;

uint64_t pack(uint64_t wanted, int64_t held) {
  return wanted << kShift | static_cast<uint64_t>(held);
}
uint64_t wanted_of(uint64_t state) { return state >> kShift; }
int held_of(uint64_t state) { return static_cast<int>(state & 0xffffffffu); }

}  // namespace

CoreBudget& CoreBudget::process() {
  static auto* const budget = new CoreBudget(available_cores());  // outlives every pool
  return *budget;
}

int CoreBudget::share(uint64_t wanted_by_all, int wanted, int held_by_others) const {
  if (wanted_by_all == static_cast<uint64_t>(wanted)) return wanted;  // alone
  const auto fair = static_cast<int>(static_cast<uint64_t>(cores_) * static_cast<uint64_t>(wanted) /
                                     wanted_by_all);
  // Other pools may hold more than their share until they adjust.
  return std::max(1, std::min({wanted, fair, cores_ - held_by_others}));
}

int CoreBudget::enter(int wanted) {
  uint64_t state = state_.load();
  for (;;) {
    const uint64_t all = wanted_of(state) + static_cast<uint64_t>(wanted);
    const int held = share(all, wanted, held_of(state));
    if (state_.compare_exchange_weak(state, pack(all, held_of(state) + held))) return held;
  }
}

int CoreBudget::adjust(int wanted, int held) {
  uint64_t state = state_.load();
  for (;;) {
    const int others = held_of(state) - held;
    const int now = share(wanted_of(state), wanted, others);
    if (now == held || state_.compare_exchange_weak(state, pack(wanted_of(state), others + now)))
      return now;
  }
}

void CoreBudget::leave(int wanted, int held) {
  state_.fetch_sub(pack(static_cast<uint64_t>(wanted), held));
}

}  // namespace gemtp
