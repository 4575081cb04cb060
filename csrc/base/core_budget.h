// Shares the cores of the process among the thread pools that are at work in it, so that two
// engines that generate at once do not run twice as many threads as there are cores.
#pragma once

#include <atomic>
#include <cstdint>

namespace gemtp {

class CoreBudget {
 public:
  explicit CoreBudget(int cores) : cores_(cores) {}
  CoreBudget(const CoreBudget&) = delete;
  CoreBudget& operator=(const CoreBudget&) = delete;

  /// Of this process: as many as available_cores().
  static CoreBudget& process();

  // A pool that wants `wanted` threads holds some from enter() to leave(): all it wants while no
  // other pool is at work, even beyond the cores; else a share of the cores in proportion, at least
  // one. Shares change when pools come and go; adjust() trades what is held for the present share.
  int enter(int wanted);
  int adjust(int wanted, int held);
  void leave(int wanted, int held);

  /// Changes whenever a pool comes, goes or adjusts: a cheap question before adjust().
  uint64_t state() const { return state_.load(std::memory_order_relaxed); }

  /// For a forked child, in which no pool is at work.
  void reset() { state_.store(0); }

 private:
  int share(uint64_t wanted_by_all, int wanted, int held_by_others) const;

  const int cores_;
  std::atomic<uint64_t> state_{0};  // sum of wanted << 32 | sum of held
};

}  // namespace gemtp
