// Measures the cost of parallel sections: gemtp_thread_pool_bench [most threads]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "base/cpu_info.h"
#include "base/thread_pool.h"

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Microseconds of the fastest of some rounds of fn(), per call.
template <class Fn>
double cost(int calls, const Fn& fn) {
  double best = 1e9;
  for (int round = 0; round < 20; ++round) {
    const double start = now();
    for (int i = 0; i < calls; ++i) fn();
    best = std::min(best, (now() - start) / calls);
  }
  return best * 1e6;
}

}  // namespace

int main(int argc, char** argv) {
  const int most = argc > 1 ? std::atoi(argv[1]) : gemtp::default_threads();
  std::printf("%7s %14s %14s %14s %14s\n", "threads", "section", "all join", "pass", "after sleep");
  for (int threads = 1; threads <= most; ++threads) {
    gemtp::ThreadPool pool(threads);
    const auto nothing = [](int64_t, int64_t, int) {};
    // A section whose pieces wait for each other takes as long as the last thread needs to come.
    const auto meet = [&] {
      std::atomic<int> here{0};
      pool.parallel_for(threads, 1, [&](int64_t, int64_t, int) {
        ++here;
        while (here < threads) std::this_thread::yield();
      });
    };
    double section, join;
    {
      const gemtp::ThreadPool::Pass pass(pool);
      section = cost(2000, [&] { pool.parallel_for(4 * threads, 1, nothing); });
      join = threads > 1 ? cost(200, meet) : 0;
    }
    const double pass = cost(200, [&] {
      const gemtp::ThreadPool::Pass p(pool);
      pool.parallel_for(4 * threads, 1, nothing);
    });
    const double sleep =
        threads == 1
            ? 0
            : cost(20, [&] {
                std::this_thread::sleep_for(std::chrono::microseconds(500));
                const gemtp::ThreadPool::Pass p(pool);
                meet();
              }) - cost(20, [] { std::this_thread::sleep_for(std::chrono::microseconds(500)); });
    std::printf("%7d %11.2f us %11.2f us %11.2f us %11.2f us\n", threads, section, join, pass,
                sleep);
  }
  return 0;
}
