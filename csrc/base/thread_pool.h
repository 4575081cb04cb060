// A small fork-join pool. Between two calls its workers spin for some tens of microseconds
// (decoding issues hundreds of short parallel sections a step) and then sleep, so that an idle
// model costs nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace gemtp {

class ThreadPool {
 public:
  /// `threads` >= 1 counts the calling thread.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls fn(begin, end, thread) over [0, n) cut into pieces of at most `grain`, on all threads,
  /// and returns when every piece is done. Which thread runs which piece is not fixed, so fn's
  /// result must not depend on it. fn must not throw and must not call back into the pool. One
  /// caller at a time.
  template <class Fn>
  void parallel_for(int64_t n, int64_t grain, const Fn& fn) {
    if (n <= 0) return;
    if (workers_.empty() || n <= grain) {
      fn(int64_t{0}, n, 0);
      return;
    }
    run(n, grain, &fn, [](const void* f, int64_t begin, int64_t end, int thread) {
      (*static_cast<const Fn*>(f))(begin, end, thread);
    });
  }

 private:
  using Invoke = void (*)(const void* fn, int64_t begin, int64_t end, int thread);
  void run(int64_t n, int64_t grain, const void* fn, Invoke invoke);
  void work(int thread);
  void worker_loop(int thread);

  // The current section; written by the caller while gate_ is 0.
  int64_t n_ = 0, grain_ = 1;
  const void* fn_ = nullptr;
  Invoke invoke_ = nullptr;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};  // sections so far; what idle workers watch
  alignas(64) std::atomic<uint32_t> gate_{0};        // kOpen | number of workers inside the section
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace gemtp
