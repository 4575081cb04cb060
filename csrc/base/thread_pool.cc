#include "base/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <new>
#include <system_error>
#include <utility>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace gemtp {
namespace {

constexpr uint32_t kOpen = 1u << 31;  // workers may still enter the section
constexpr int32_t kStop = -1;         // value of awake_ that ends the workers

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
  asm volatile("yield");
#else
  std::this_thread::yield();
#endif
}

// A wait bounded by the clock, not by a number of pauses: one pause takes from 1 to 140 cycles.
class Spin {
 public:
  bool expired() {
    pause();
    if (++pauses_ % 64 != 0) return false;
    const auto now = std::chrono::steady_clock::now();
    if (pauses_ == 64) end_ = now + std::chrono::microseconds(50);
    return now >= end_;
  }

 private:
  uint32_t pauses_ = 0;
  std::chrono::steady_clock::time_point end_;
};

// Returns once `value` differs from `old`.
void await_change(std::atomic<uint32_t>& value, uint32_t old) {
  for (Spin spin; value.load(std::memory_order_acquire) == old;)
    if (spin.expired()) return value.wait(old, std::memory_order_acquire);
}

// Leaks the handles of workers that stayed in the parent: there are no threads to join, and
// destroying the handles would end the process.
void forget(std::vector<std::thread>& workers) noexcept {
  alignas(std::vector<std::thread>) std::byte never_destroyed[sizeof workers];
  new (never_destroyed) std::vector<std::thread>(std::move(workers));
  workers.clear();
}

}  // namespace

ThreadPool::ThreadPool(int threads, CoreBudget& budget) : budget_(budget) {
  start_workers(threads);
}

ThreadPool::~ThreadPool() {
  if (forks_ != fork_count()) {
    forget(workers_);
    return;
  }
  awake_.store(kStop);
  awake_.notify_all();
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& t : workers_) t.join();
}

// Starts fewer workers if the system limits threads or memory.
void ThreadPool::start_workers(int threads) noexcept {
  forks_ = fork_count();
  try {
    workers_.reserve(static_cast<size_t>(std::max(threads - 1, 0)));
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { worker_loop(i); });
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {
  }
}

// Starts new workers in a forked child, which has the pool's memory but not its threads.
void ThreadPool::revive_after_fork() noexcept {
  const int threads = this->threads();
  forget(workers_);
  generation_.store(0);
  gate_.store(0);
  awake_.store(0);
  start_workers(threads);
}

void ThreadPool::begin_pass(const std::atomic<bool>* stop) {
  const bool forked = forks_ != fork_count();
  if ((depth_ > 0 && forked) || (depth_ == 0 && !watch_.enter())) throw_lost_by_fork();
  if (depth_++ > 0) return;
  stop_ = stop;
  if (forked) revive_after_fork();
  budget_state_ = budget_.state();  // first: later changes reach run()
  held_ = budget_.enter(threads());
  wake(held_);
}

void ThreadPool::end_pass() {
  if (--depth_ > 0) return;
  stop_ = nullptr;
  awake_.store(0, std::memory_order_release);
  if (forks_ == fork_count()) budget_.leave(threads(), held_);  // a child has a fresh budget
  held_ = 0;
  watch_.leave();
}

// Lets `threads` threads, including the caller, take part from now on.
void ThreadPool::wake(int threads) {
  if (awake_.exchange(threads, std::memory_order_acq_rel) < threads && threads > 1)
    awake_.notify_all();
}

void ThreadPool::work(int thread) noexcept {
  for (;;) {
    const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
    if (begin >= n_ || stopped() || failed_.load(std::memory_order_relaxed)) return;
    try {
      invoke_(fn_, begin, std::min(begin + grain_, n_), thread);
    } catch (...) {
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
  }
}

void ThreadPool::run(int64_t n, int64_t grain, const void* fn, Invoke invoke) {
  const Pass pass(*this);  // in case the section is outside any pass
  if (const uint64_t state = budget_.state(); state != budget_state_) {
    budget_state_ = state;
    held_ = budget_.adjust(threads(), held_);
    wake(held_);
  }
  if (held_ == 1) {
    if (!stop_) return invoke(fn, 0, n, 0);
    for (int64_t at = 0; at < n && !stopped(); at += grain)
      invoke(fn, at, std::min(at + grain, n), 0);
    return;
  }
  n_ = n;
  grain_ = grain;
  fn_ = fn;
  invoke_ = invoke;
  next_.store(0, std::memory_order_relaxed);
  gate_.store(kOpen, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  work(0);
  // Every piece has been taken; wait for the workers that are still running one.
  uint32_t inside = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  while (inside != 0) {
    await_change(gate_, inside);
    inside = gate_.load(std::memory_order_acquire);
  }
  if (failed_.load(std::memory_order_relaxed)) {
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }
}

// Returns true when there is a section that this worker has not seen, false when the worker must
// end.
bool ThreadPool::await_section(int thread, uint32_t seen) {
  for (;;) {
    const int32_t awake = awake_.load(std::memory_order_acquire);
    if (awake == kStop) return false;
    if (thread >= awake) {
      awake_.wait(awake, std::memory_order_acquire);
      continue;
    }
    for (Spin spin; awake_.load(std::memory_order_relaxed) > thread;) {
      if (generation_.load(std::memory_order_acquire) != seen) return true;
      if (spin.expired()) generation_.wait(seen, std::memory_order_acquire);
    }
  }
}

void ThreadPool::worker_loop(int thread) {
  uint32_t seen = 0;
  while (await_section(thread, seen)) {
    seen = generation_.load(std::memory_order_acquire);
    uint32_t gate = gate_.load(std::memory_order_relaxed);
    while (gate & kOpen) {
      if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) continue;
      work(thread);
      if (gate_.fetch_sub(1, std::memory_order_acq_rel) == 1) gate_.notify_one();
      break;
    }
  }
}

}  // namespace gemtp
