#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "base/thread_pool.h"

using gemtp::ThreadPool;

TEST_CASE("every index is visited exactly once, whatever the threads and the grain") {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (int64_t n : {0, 1, 2, 7, 64, 1000})
      for (int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int thread) {
          CHECK(thread >= 0);
          CHECK(thread < threads);
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (const auto& v : visits) CHECK(v == 1);
      }
  }
}

TEST_CASE("thousands of short sections in a row, with pauses in which the workers fall asleep") {
  ThreadPool pool(2);
  int64_t total = 0;
  for (int section = 0; section < 5000; ++section) {
    std::atomic<int64_t> sum{0};
    pool.parallel_for(16, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) sum += i;
    });
    REQUIRE(sum == 120);
    total += sum;
    if (section % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK(total == 5000 * 120);
}

TEST_CASE("two pools work side by side") {
  ThreadPool a(2), b(2);
  std::atomic<int64_t> sum{0};
  const auto work = [&](ThreadPool& pool) {
    for (int i = 0; i < 500; ++i)
      pool.parallel_for(8, 1, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
  };
  std::thread other([&] { work(a); });
  work(b);
  other.join();
  CHECK(sum == 2 * 500 * 8);
}
