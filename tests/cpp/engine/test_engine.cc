#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "generate/generation.h"

using namespace gemtp;

namespace {

std::shared_ptr<Engine> open_demo(int threads) {
  const std::string data = GEMTP_SOURCE_DIR "/python/gemtp_native/data/";
  EngineOptions options;
  options.threads = threads;
  options.context = 128;
  options.prefill_chunk = 16;
  return Engine::open(data + "target.gguf", data + "drafter.gguf", options);
}

std::vector<int32_t> generate(const std::shared_ptr<Engine>& engine) {
  GenerationParams params;
  params.max_tokens = 24;
  params.ignore_eos = true;
  params.sampling.temperature = 0.7f;
  params.draft = 3;
  const std::vector<int32_t> prompt =
      engine->model().need_tokenizer().encode("def mean(values):\n    return sum(", true, false);
  Generation generation(engine, prompt, params);
  std::vector<int32_t> tokens;
  while (!generation.done())
    for (const Emitted& e : generation.step()) tokens.push_back(e.id);
  return tokens;
}

}  // namespace

TEST_CASE("engines at once, and callers of one engine at once, each get what they get alone") {
  const std::vector<int32_t> alone = generate(open_demo(1));
  REQUIRE(alone.size() == 24);
  const auto first = open_demo(3), second = open_demo(2);
  std::vector<std::vector<int32_t>> results(4);
  std::vector<std::thread> callers;
  for (size_t i = 0; i < results.size(); ++i)
    callers.emplace_back([&, i] { results[i] = generate(i % 2 ? first : second); });
  for (std::thread& t : callers) t.join();
  for (const auto& tokens : results) CHECK(tokens == alone);
}

TEST_CASE("opening reports its way from 0 to 1, and ends where the caller says") {
  const std::string data = GEMTP_SOURCE_DIR "/python/gemtp_native/data/";
  std::vector<double> told;
  EngineOptions options;
  options.context = 128;
  options.progress = [&](double fraction) {
    told.push_back(fraction);
    return true;
  };
  REQUIRE(Engine::open(data + "target.gguf", data + "drafter.gguf", options));
  REQUIRE(told.size() > 10);
  CHECK(told.front() == 0);
  CHECK(told.back() == 1);
  for (size_t i = 1; i < told.size(); ++i) CHECK(told[i] > told[i - 1]);
  CHECK(told[told.size() - 2] > 0.9);  // what is read is what was expected

  for (const double end : {0.0, 0.5, 1.0}) {
    options.progress = [end](double fraction) { return fraction < end; };
    try {
      Engine::open(data + "target.gguf", data + "drafter.gguf", options);
      FAIL("not cancelled");
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::kCancelled);
      CHECK(std::string(e.what()) == "loading the model was cancelled");
    }
  }
  options.progress = [](double) -> bool { throw std::string("mine"); };
  CHECK_THROWS_AS(Engine::open(data + "target.gguf", "", options), std::string);
}
