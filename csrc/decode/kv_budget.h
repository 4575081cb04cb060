// How much memory the K/V caches of all sequences may take together.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

namespace gemtp {

class KvBudget {
 public:
  /// Bytes.
  explicit KvBudget(int64_t limit) : limit_(limit) {}
  int64_t limit() const { return limit_; }

  /// A part of a budget, given back when the last copy goes.
  using Share = std::shared_ptr<void>;
  /// `bytes` of the budget; null where that has not so much left.
  static Share take(const std::shared_ptr<KvBudget>& budget, int64_t bytes) {
    if (!budget->add(bytes)) return nullptr;
    return Share(budget.get(), [budget, bytes](void*) { budget->add(-bytes); });
  }

 private:
  bool add(int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (used_ + bytes > limit_) return false;
    used_ += bytes;
    return true;
  }

  const int64_t limit_;
  std::mutex mutex_;
  int64_t used_ = 0;
};

}  // namespace gemtp
