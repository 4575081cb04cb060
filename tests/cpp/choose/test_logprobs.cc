#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "choose/distribution.h"
#include "generate/generation.h"
#include "measure/score.h"
#include "measure/traces.h"

using namespace gemtp;

namespace {

std::shared_ptr<Engine> open_demo() {
  const std::string data = GEMTP_SOURCE_DIR "/python/gemtp_native/data/";
  EngineOptions options;
  options.threads = 2;
  options.context = 128;
  return Engine::open(data + "target.gguf", data + "drafter.gguf", options);
}

std::vector<int32_t> prompt(const Engine& engine) {
  return engine.model().need_tokenizer().encode("def mean(values):\n    return sum(", true, false);
}

std::vector<Emitted> generate(const std::shared_ptr<Engine>& engine, GenerationParams params) {
  params.max_tokens = 24;
  params.ignore_eos = true;
  Generation generation(engine, prompt(*engine), std::move(params));
  std::vector<Emitted> out;
  while (!generation.done())
    for (Emitted& e : generation.step()) out.push_back(std::move(e));
  return out;
}

}  // namespace

TEST_CASE("log-probabilities: the likeliest in order, equal ones by id") {
  std::vector<float> logits(1000, -3.0f);
  for (size_t i : {7u, 255u, 256u, 999u}) logits[i] = 2.0f;
  logits[500] = 5.0f;
  const Logprobs p = logprobs(logits.data(), 1000, 3, 6);
  std::vector<int32_t> ids;
  for (const TokenLogprob& t : p.top) ids.push_back(t.id);
  CHECK(ids == std::vector<int32_t>{500, 7, 255, 256, 999, 0});
  CHECK(p.chosen == p.top.back().logprob);
  CHECK(std::is_sorted(p.top.begin(), p.top.end(),
                       [](const auto& a, const auto& b) { return a.logprob > b.logprob; }));
  CHECK(logprobs(logits.data(), 1000, 3, 0).top.empty());
  CHECK(logprobs(logits.data(), 2, 1, 20).top.size() == 2);
}

TEST_CASE("log-probabilities of a generation are the scores of its text") {
  const auto engine = open_demo();
  for (const float temperature : {0.0f, 0.9f})
    for (const int draft : {0, 4, kAutoDraft}) {
      GenerationParams params;
      params.sampling.temperature = temperature;
      params.sampling.repetition_penalty = 1.2f;
      params.draft = draft;
      params.logprobs = 2;
      const std::vector<Emitted> out = generate(engine, params);
      std::vector<int32_t> ids = prompt(*engine);
      const auto first = static_cast<int64_t>(ids.size());
      for (const Emitted& e : out) ids.push_back(e.id);
      const std::vector<double> scores = score(engine->model(), ids, first);
      for (size_t i = 0; i < out.size(); ++i) {
        CHECK(out[i].logprobs.chosen == scores[i]);
        CHECK(out[i].logprobs.top.size() == 2);
      }
    }
}

TEST_CASE("a logits processor sees each token's logits once, whatever is drafted") {
  const auto engine = open_demo();
  const size_t n = prompt(*engine).size();
  std::vector<int32_t> plain;
  for (const int draft : {0, 1, 6, kAutoDraft}) {
    std::vector<size_t> lengths;
    GenerationParams params;
    params.draft = draft;
    params.logits_processor = [&](const std::vector<int32_t>& tokens, float* logits,
                                  int64_t vocab) {
      lengths.push_back(tokens.size());
      for (int64_t i = tokens.back() % 3; i < vocab; i += 3) logits[i] -= 5.0f;
    };
    std::vector<int32_t> ids;
    for (const Emitted& e : generate(engine, params)) ids.push_back(e.id);
    REQUIRE(lengths.size() == 24);
    for (size_t i = 0; i < lengths.size(); ++i) CHECK(lengths[i] == n + i);
    if (plain.empty()) plain = ids;
    CHECK(ids == plain);
  }
}

TEST_CASE("what a logits processor may not do") {
  const auto engine = open_demo();
  const auto refused = [&](LogitsProcessor processor) {
    GenerationParams params;
    params.logits_processor = std::move(processor);
    try {
      generate(engine, params);
    } catch (const Error& e) {
      return e.kind() == ErrorKind::kArgument;
    }
    return false;
  };
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  using Tokens = std::vector<int32_t>;
  CHECK(refused([](const Tokens&, float* logits, int64_t) { logits[5] = kInfinity; }));
  CHECK(refused([](const Tokens&, float* logits, int64_t) { logits[5] -= 0.0f * kInfinity; }));
  CHECK(refused(
      [](const Tokens&, float* logits, int64_t n) { std::fill(logits, logits + n, -kInfinity); }));
  CHECK(refused([&](const Tokens& tokens, float* logits, int64_t) {
    trace_logits(engine->model(), tokens, logits);
  }));
  CHECK(refused([&](const Tokens&, float*, int64_t) { generate(engine, {}); }));
  CHECK(generate(engine, {}).size() == 24);
}

TEST_CASE("more log-probabilities than there are is refused") {
  const auto engine = open_demo();
  for (const int count : {-2, kMaxTopLogprobs + 1}) {
    GenerationParams params;
    params.logprobs = count;
    CHECK_THROWS_AS(generate(engine, params), Error);
  }
}
