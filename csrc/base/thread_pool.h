// A small fork-join pool. Decoding issues hundreds of short parallel sections per pass. Within a
// pass the workers spin for some tens of microseconds between two sections before they sleep;
// outside a pass they sleep, so an idle model costs nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#include "base/core_budget.h"
#include "base/fork.h"

namespace gemtp {

class ThreadPool {
 public:
  /// `threads` >= 1 counts the calling thread. The pool is smaller if the system refuses a thread
  /// or the memory for one.
  explicit ThreadPool(int threads, CoreBudget& budget = CoreBudget::process());
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  /// Threads that take part in the current pass: fewer while other pools are at work; 0 outside a
  /// pass.
  int awake() const { return held_; }

  /// While a Pass exists, sections are expected to follow each other closely. Passes may nest; one
  /// caller at a time. When the outermost pass's `stop` becomes true, sections skip their remaining
  /// pieces. In a child that was forked during a pass, a new Pass throws Error{kArgument}.
  class Pass {
   public:
    explicit Pass(ThreadPool& pool, const std::atomic<bool>* stop = nullptr) : pool_(pool) {
      pool_.begin_pass(stop);
    }
    ~Pass() { pool_.end_pass(); }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

   private:
    ThreadPool& pool_;
  };
  void begin_pass(const std::atomic<bool>* stop);
  void end_pass();
  bool stopped() const { return stop_ && stop_->load(std::memory_order_relaxed); }

  /// Calls fn(begin, end, thread) on all threads for [0, n), cut into pieces of at most `grain`,
  /// and returns when every piece is done. A single thread runs it as one piece, unless the pass
  /// can be stopped. Which thread runs which piece is not fixed, so fn's result must not depend on
  /// it. If fn throws, the remaining pieces are skipped and the first exception is rethrown here
  /// once no thread is at work any more. fn must not call back into the pool. One caller at a time.
  template <class Fn>
  void parallel_for(int64_t n, int64_t grain, const Fn& fn) {
    if (n <= 0) return;
    if (n <= grain || (workers_.empty() && !stop_)) {
      fn(int64_t{0}, n, 0);
      return;
    }
    run(n, grain, &fn, [](const void* f, int64_t begin, int64_t end, int thread) {
      (*static_cast<const Fn*>(f))(begin, end, thread);
    });
  }

 private:
  using Invoke = void (*)(const void* fn, int64_t begin, int64_t end, int thread);
  void start_workers(int threads) noexcept;
  void revive_after_fork() noexcept;
  void wake(int threads);
  void run(int64_t n, int64_t grain, const void* fn, Invoke invoke);
  void work(int thread) noexcept;
  bool await_section(int thread, uint32_t seen);
  void worker_loop(int thread);

  ForkWatch watch_;  // in use during a pass
  CoreBudget& budget_;
  uint64_t budget_state_ = 0;                // at the last adjustment
  int held_ = 0;                             // threads at work, including the caller
  int depth_ = 0;                            // number of nested passes
  const std::atomic<bool>* stop_ = nullptr;  // of the pass; null: it cannot be stopped
  uint32_t forks_ = 0;                       // fork_count() when the workers were started

  // The current section; written by the caller while gate_ is 0.
  int64_t n_ = 0, grain_ = 1;
  const void* fn_ = nullptr;
  Invoke invoke_ = nullptr;
  std::atomic<bool> failed_{false};  // a piece has thrown
  std::exception_ptr failure_;       // written by the thread that set failed_
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};  // sections so far; what awake workers watch
  alignas(64) std::atomic<uint32_t> gate_{0};        // kOpen | number of workers inside the section
  alignas(64) std::atomic<int32_t> awake_{0};        // workers below this look for sections
  std::vector<std::thread> workers_;
};

}  // namespace gemtp
