#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "generate/generation.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif
#if defined(__SANITIZE_THREAD__)
#define GEMTP_NO_FORK  // the thread sanitizer ends a child that starts threads
#endif
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kForksBesideOthers = false;  // GCC's leaves its allocator locked in the child
#else
constexpr bool kForksBesideOthers = true;
#endif

using namespace gemtp;

namespace {

std::shared_ptr<Engine> open_demo(int threads, int64_t chunk = 32) {
  const std::string data = GEMTP_SOURCE_DIR "/python/gemtp_native/data/";
  EngineOptions options;
  options.threads = threads;
  options.context = 512;
  options.prefill_chunk = chunk;
  return Engine::open(data + "target.gguf", data + "drafter.gguf", options);
}

const char* kText =
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n\n\ndef variance(values):\n";

struct Job {
  std::vector<int32_t> prompt;
  GenerationParams params;
};

// Different in prompt, length, sampling and depth.
std::vector<Job> jobs(const Engine& engine, int n) {
  std::vector<Job> out;
  const std::vector<int32_t> text = engine.model().need_tokenizer().encode(kText, true, false);
  for (int i = 0; i < n; ++i) {
    Job job;
    job.prompt.assign(text.begin(), text.end() - (i * 7) % 40);
    job.params.max_tokens = 20 + 9 * i;
    job.params.ignore_eos = true;
    job.params.draft = i % 3 == 0 ? kAutoDraft : i % 3 == 1 ? 0 : 4;
    job.params.sampling.temperature = i % 2 ? 0.9f : 0.0f;
    job.params.sampling.top_k = i % 4 == 3 ? 20 : 0;
    job.params.sampling.seed = static_cast<uint64_t>(i);
    out.push_back(job);
  }
  return out;
}

std::vector<int32_t> run(const std::shared_ptr<Engine>& engine, const Job& job) {
  Generation generation(engine, job.prompt, job.params);
  std::vector<int32_t> tokens;
  while (!generation.done())
    for (const Emitted& e : generation.step()) tokens.push_back(e.id);
  return tokens;
}

}  // namespace

TEST_CASE("sequences that share passes get the tokens they get alone") {
  const auto alone = open_demo(1);
  const std::vector<Job> all = jobs(*alone, 8);
  std::vector<std::vector<int32_t>> expected;
  for (const Job& job : all) {
    alone->sequences().clear();
    expected.push_back(run(alone, job));
  }
  for (const auto& [threads, chunk] : {std::pair{2, 32}, {1, 5}, {3, 512}}) {
    const auto engine = open_demo(threads, chunk);
    for (int repeat = 0; repeat < 2; ++repeat) {  // the second time with prefixes in the cache
      std::vector<std::vector<int32_t>> results(all.size());
      std::vector<std::thread> callers;
      for (size_t i = 0; i < all.size(); ++i)
        callers.emplace_back([&, i] { results[i] = run(engine, all[i]); });
      for (std::thread& t : callers) t.join();
      CHECK(results == expected);
    }
  }
}

TEST_CASE("steps of several sequences are taken in turns on one thread, too") {
  const auto engine = open_demo(2);
  const std::vector<Job> all = jobs(*engine, 4);
  std::vector<std::vector<int32_t>> expected, results(all.size());
  for (const Job& job : all) expected.push_back(run(engine, job));
  std::vector<std::unique_ptr<Generation>> generations;
  for (const Job& job : all)
    generations.push_back(std::make_unique<Generation>(engine, job.prompt, job.params));
  for (bool any = true; any;) {
    any = false;
    for (size_t i = 0; i < all.size(); ++i) {
      if (generations[i]->done()) continue;
      any = true;
      for (const Emitted& e : generations[i]->step()) results[i].push_back(e.id);
    }
  }
  CHECK(results == expected);
}

TEST_CASE("a generation that is cancelled ends, and the others go on with what they get alone") {
  const auto engine = open_demo(2);
  const std::vector<Job> all = jobs(*engine, 6);
  std::vector<std::vector<int32_t>> expected;
  for (const Job& job : all) expected.push_back(run(engine, job));
  for (int repeat = 0; repeat < 4; ++repeat) {
    engine->sequences().clear();
    std::vector<std::vector<int32_t>> results(all.size());
    std::vector<std::thread> callers;
    for (size_t i = 1; i < all.size(); ++i)
      callers.emplace_back([&, i] { results[i] = run(engine, all[i]); });
    Job endless = all[0];
    endless.params.max_tokens = 400;
    Generation victim(engine, endless.prompt, endless.params);
    std::vector<int32_t> given;
    bool cancelled = false;
    std::thread stepping([&] {
      try {
        while (!victim.done())
          for (const Emitted& e : victim.step()) given.push_back(e.id);
      } catch (const Error& e) {
        cancelled = e.kind() == ErrorKind::kCancelled;
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + repeat));
    victim.cancel();
    stepping.join();
    CHECK(cancelled);
    CHECK(victim.done());
    CHECK(victim.finish_reason() == FinishReason::kCancelled);
    CHECK(victim.step().empty());
    // Its sequence is as long as what was given, and goes on the same.
    Job rest = endless;
    rest.params.max_tokens = 60;
    const std::vector<int32_t> whole = run(engine, rest);
    for (size_t i = 0; i < std::min(given.size(), whole.size()); ++i) CHECK(given[i] == whole[i]);
    for (std::thread& t : callers) t.join();
    for (size_t i = 1; i < all.size(); ++i) CHECK(results[i] == expected[i]);
  }
}

TEST_CASE("cancel before the first step, between steps and after the end") {
  const auto engine = open_demo(1);
  const Job job = jobs(*engine, 1)[0];
  Generation before(engine, job.prompt, job.params);
  before.cancel();
  CHECK_THROWS_AS(before.step(), Error);
  CHECK(before.done());
  Generation between(engine, job.prompt, job.params);
  while (between.stats().tokens < 5) between.step();
  between.cancel();
  CHECK_THROWS_AS(between.step(), Error);
  CHECK(between.stats().tokens >= 5);
  Generation after(engine, job.prompt, job.params);
  while (!after.done()) after.step();
  after.cancel();
  CHECK(after.step().empty());
  CHECK(after.finish_reason() == FinishReason::kLength);
}

#if (defined(__unix__) || defined(__APPLE__)) && !defined(GEMTP_NO_FORK)
namespace {

// What a child that generates ends with: 0: the tokens that are expected, 1: an Error of the fork.
int fork_and_run(std::shared_ptr<Engine>& engine, const Job& job,
                 const std::vector<int32_t>& expected) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    int code = 9;
    try {
      code = run(engine, job) == expected ? 0 : 8;
    } catch (const Error& e) {
      code = e.kind() == ErrorKind::kArgument ? 1 : 7;
    }
    engine.reset();
    _exit(code);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("a child that was forked while others generate is told, and does not wait") {
  auto engine = open_demo(2), idle = open_demo(2);
  const std::vector<Job> all = jobs(*engine, 4);
  const std::vector<int32_t> expected = run(engine, all[0]);
  CHECK(fork_and_run(engine, all[0], expected) == 0);
  CHECK(fork_and_run(idle, all[0], expected) == 0);
  if (!kForksBesideOthers) return;
  std::atomic<bool> stop{false};
  std::vector<std::thread> callers;
  for (size_t i = 1; i < all.size(); ++i)
    callers.emplace_back([&, i] {
      while (!stop) run(engine, all[i]);
    });
  int told = 0;
  for (int i = 0; i < 20; ++i) {
    const int code = fork_and_run(engine, all[0], expected);
    CHECK(code <= 1);
    told += code;
    CHECK(fork_and_run(idle, all[0], expected) == 0);
  }
  CHECK(told > 0);
  stop = true;
  for (std::thread& t : callers) t.join();
  CHECK(run(engine, all[0]) == expected);
  CHECK(fork_and_run(engine, all[0], expected) == 0);
}
#endif
