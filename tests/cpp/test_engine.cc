#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "decode/engine.h"
#include "decode/generation.h"

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
      engine->need_tokenizer().encode("def mean(values):\n    return sum(", true, false);
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
