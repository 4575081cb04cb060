// How much memory the K/V caches of all sequences may take together.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace gemtp {

class KvBudget {
 public:
  /// Bytes.
  explicit KvBudget(int64_t limit) : limit_(limit) {}
  int64_t limit() const { return limit_; }
  int64_t used() const { return used_.load(); }

  /// A part of a budget, given back when the last copy goes.
  using Reservation = std::shared_ptr<void>;
  /// `bytes` of the budget; null where that has not so much left.
  static Reservation take(const std::shared_ptr<KvBudget>& budget, int64_t bytes) {
    if (!budget->add(bytes)) return nullptr;
    return Reservation(budget.get(), [budget, bytes](void*) { budget->add(-bytes); });
  }

 private:
  bool add(int64_t bytes) {
    int64_t used = used_.load();
    do {
      if (used + bytes > limit_) return false;
    } while (!used_.compare_exchange_weak(used, used + bytes));
    return true;
  }

  const int64_t limit_;
  std::atomic<int64_t> used_{0};
};

}  // namespace gemtp
