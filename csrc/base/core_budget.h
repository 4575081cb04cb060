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

  /// The budget of this process: available_cores() cores.
  static CoreBudget& process();

  // A pool that wants `wanted` threads holds some from enter() to leave(). While no other pool is
  // at work it holds all of them, even more than there are cores; otherwise it holds a proportional
  // share of the cores, at least one. Shares change when pools enter and leave; adjust() exchanges
  // `held` for the current share. enter() and adjust() return the number of threads now held.
  int enter(int wanted);
  int adjust(int wanted, int held);
  void leave(int wanted, int held);

  /// Changes whenever a pool enters, leaves or adjusts: a cheap check of whether to call adjust().
  uint64_t state() const { return state_.load(std::memory_order_relaxed); }

  /// Resets the budget in a forked child, in which no pool is at work.
  void reset() { state_.store(0); }

 private:
  int share(uint64_t wanted_by_all, int wanted, int held_by_others) const;

  const int cores_;
  std::atomic<uint64_t> state_{0};  // sum of wanted << 32 | sum of held
};

}  // namespace gemtp
