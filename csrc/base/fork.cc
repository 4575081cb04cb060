#include "base/fork.h"

#include <atomic>

#include "base/core_budget.h"
#include "base/error.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace gemtp {

/// The process's record of its forks. The mutex is held during a fork and during every change of a
/// watch, so the child finds a consistent state.
struct Forks {
  std::mutex mutex;
  std::atomic<uint32_t> count{0};
  ForkWatch* watches = nullptr;

  static Forks& of_process() {
    static auto* const forks = new Forks;  // outlives every watch
    return *forks;
  }

  Forks() {
    CoreBudget::process();  // exists before a fork resets it
#if !defined(_WIN32)
    pthread_atfork([] { of_process().mutex.lock(); }, [] { of_process().mutex.unlock(); },
                   [] { of_process().in_child(); });
#endif
  }

  void in_child() {
    ++count;
    for (ForkWatch* w = watches; w; w = w->next_)
      if (w->uses_ > 0) w->lost_ = true;
    CoreBudget::process().reset();
    mutex.unlock();
  }
};

std::mutex& fork_mutex() { return Forks::of_process().mutex; }

uint32_t fork_count() { return Forks::of_process().count.load(std::memory_order_relaxed); }

ForkWatch::ForkWatch() {
  const std::lock_guard<std::mutex> lock(fork_mutex());
  ForkWatch*& first = Forks::of_process().watches;
  next_ = first;
  if (next_) next_->before_ = this;
  first = this;
}

ForkWatch::~ForkWatch() {
  const std::lock_guard<std::mutex> lock(fork_mutex());
  (before_ ? before_->next_ : Forks::of_process().watches) = next_;
  if (next_) next_->before_ = before_;
}

bool ForkWatch::enter() noexcept {
  const std::lock_guard<std::mutex> lock(fork_mutex());
  if (!lost_) ++uses_;
  return !lost_;
}

void ForkWatch::leave() noexcept {
  const std::lock_guard<std::mutex> lock(fork_mutex());
  --uses_;
}

bool ForkWatch::lost() const noexcept {
  const std::lock_guard<std::mutex> lock(fork_mutex());
  return lost_;
}

void throw_lost_by_fork() {
  throw Error(ErrorKind::kArgument,
              "the model was at work in another thread when this process was forked; open it again "
              "in this process, or fork while nothing is at work");
}

}  // namespace gemtp
