#include <doctest/doctest.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/core_budget.h"
#include "base/thread_pool.h"
#include "base/topology.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif
#if defined(__SANITIZE_THREAD__)
#define GEMTP_NO_FORK  // the thread sanitizer ends a child that starts threads
#endif

using gemtp::CoreBudget;
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

TEST_CASE("what a piece throws reaches the caller, on any thread, and the pool goes on") {
  for (int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      std::atomic<int64_t> sum{0};
      CHECK_THROWS_WITH_AS(pool.parallel_for(64, 1,
                                             [&](int64_t begin, int64_t end, int) {
                                               for (int64_t i = begin; i < end; ++i)
                                                 if (i % 8 == round % 8)
                                                   throw std::runtime_error("a piece");
                                             }),
                           "a piece", std::runtime_error);
      pool.parallel_for(64, 1, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
      REQUIRE(sum == 64);
    }
  }
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

TEST_CASE("sections of one pass, of nested passes, and between passes") {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  const auto section = [&] {
    pool.parallel_for(9, 1, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
  };
  CHECK(pool.awake() == 0);
  for (int round = 0; round < 200; ++round) {
    section();
    const ThreadPool::Pass pass(pool);
    CHECK(pool.awake() == 3);
    section();
    {
      const ThreadPool::Pass inner(pool);
      section();
    }
    section();
    if (round % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  CHECK(pool.awake() == 0);
  CHECK(sum == 200 * 4 * 9);
}

TEST_CASE("a pool's share of the cores") {
  CoreBudget budget(8);
  CHECK(budget.enter(8) == 8);
  CHECK(budget.enter(8) == 1);      // nothing is left, but a caller always runs
  CHECK(budget.adjust(8, 8) == 4);  // the first learns of it,
  CHECK(budget.adjust(8, 1) == 4);  // and the second gets its half
  CHECK(budget.enter(1) == 1);
  CHECK(budget.adjust(8, 4) == 3);  // 8 cores for 17 wanted
  CHECK(budget.adjust(8, 4) == 3);
  budget.leave(8, 3);
  budget.leave(1, 1);
  CHECK(budget.adjust(8, 3) == 8);
  budget.leave(8, 8);
  CHECK(budget.state() == 0);
  CHECK(budget.enter(20) == 20);  // alone, whoever asks for more threads than cores gets them
  budget.leave(20, 20);
}

TEST_CASE("pools at work at once run no more threads than there are cores") {
  constexpr int kCores = 4, kSections = 300, kPatience = 1000;
  CoreBudget budget(kCores);
  std::atomic<int> running{0}, most{0};
  std::atomic<int64_t> sum{0}, expected{0};
  std::barrier both(2);
  // Runs sections until so many threads take part. On a busy machine the other pool may need a
  // while to learn that it has to share.
  const auto sections = [&](ThreadPool& pool, int threads) {
    const auto section = [&] {
      expected += 16;
      pool.parallel_for(16, 1, [&](int64_t begin, int64_t end, int) {
        const int n = ++running;
        for (int seen = most; seen < n && !most.compare_exchange_weak(seen, n);) {
        }
        std::this_thread::yield();
        sum += end - begin;
        --running;
      });
    };
    for (int i = 0; i < kSections; ++i) section();
    for (int i = 0; i < kPatience && pool.awake() != threads; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      section();
    }
    CHECK(pool.awake() == threads);
  };
  const auto work = [&](bool last) {
    ThreadPool pool(kCores, budget);
    {
      const ThreadPool::Pass pass(pool);
      both.arrive_and_wait();  // both are at work, from here
      sections(pool, kCores / 2);
      both.arrive_and_wait();  // to here
      if (last) {
        both.arrive_and_wait();  // the other has ended
        sections(pool, kCores);
        return;
      }
    }
    both.arrive_and_wait();
  };
  std::thread other([&] { work(false); });
  work(true);
  other.join();
  CHECK(most <= kCores);
  CHECK(sum == expected);
  CHECK(budget.state() == 0);
}

TEST_CASE("one thread for each core that is fast enough") {
  using gemtp::worthwhile_threads;
  CHECK(worthwhile_threads({}) == 1);
  CHECK(worthwhile_threads({{"0"}}) == 1);
  CHECK(worthwhile_threads({{"0,1"}, {"0,1"}}) == 2);  // two siblings: both
  std::vector<gemtp::LogicalCpu> eight;
  for (const char* core : {"a", "b", "c", "d", "e", "f", "g", "h"})
    eight.insert(eight.end(), 2, {core});
  CHECK(worthwhile_threads(eight) == 8);  // 16 siblings
  // Four fast cores and four slow ones, as on a single-board computer.
  std::vector<gemtp::LogicalCpu> mixed;
  for (int i = 0; i < 8; ++i) mixed.push_back({std::to_string(i), i < 4 ? 1024 : 414});
  CHECK(worthwhile_threads(mixed) == 4);
  for (auto& cpu : mixed) cpu.capacity = cpu.capacity == 414 ? 600 : cpu.capacity;
  CHECK(worthwhile_threads(mixed) == 8);
  // What this machine says, where it says something; and nothing, from nowhere.
  CHECK(gemtp::read_topology({0}).size() == 1);
  const auto unknown = gemtp::read_topology({3, 5}, "/nowhere");
  CHECK(worthwhile_threads(unknown) == 2);
}

#if (defined(__unix__) || defined(__APPLE__)) && !defined(GEMTP_NO_FORK)
TEST_CASE("a forked child goes on with workers of its own") {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  const auto sections = [&] {
    for (int i = 0; i < 50; ++i)
      pool.parallel_for(9, 1, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
  };
  sections();
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that hangs fails
    sections();
    {
      ThreadPool another(2);
    }
    {
      const ThreadPool::Pass pass(pool);
      sections();
    }
    pool.~ThreadPool();
    _exit(sum == 3 * 50 * 9 ? 0 : 1);
  }
  REQUIRE(child > 0);
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  sections();
  CHECK(sum == 2 * 50 * 9);
}
#endif

TEST_CASE("what a piece throws comes out of the section, and the next section is whole") {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    const ThreadPool::Pass pass(pool);
    for (int64_t bad = 0; bad < 40; ++bad) {
      const auto work = [bad](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
          if (i == bad) throw std::runtime_error("a piece");
      };
      CHECK_THROWS_WITH(pool.parallel_for(40, 1, work), "a piece");
      std::atomic<int64_t> sum{0};
      pool.parallel_for(40, 1, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
      CHECK(sum == 40);
    }
  }
}
