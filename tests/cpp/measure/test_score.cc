#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "measure/score.h"
#include "measure/traces.h"

using namespace gemtp;

namespace {

std::unique_ptr<OpenedModel> open_demo(int threads, int64_t chunk) {
  EngineOptions options;
  options.threads = threads;
  options.context = 128;
  options.prefill_chunk = chunk;
  const char* path = GEMTP_SOURCE_DIR "/python/gemtp_native/data/target.gguf";
  return std::make_unique<OpenedModel>(ModelFiles::open(path, ""), options);
}

std::vector<int32_t> some_ids(const OpenedModel& model) {
  const char* text =
      "def read(path):\n    with open(path, encoding=\"utf-8\") as file:\n"
      "        return [line.rstrip() for line in file if line.strip()]\n\n\n"
      "def write(path, lines):\n    with open(path, \"w\") as file:\n        "
      "file.writelines(lines)\n";
  return model.need_tokenizer().encode(text, true, false);
}

}  // namespace

TEST_CASE("a probability is that of the logits") {
  const auto model = open_demo(2, 16);
  const std::vector<int32_t> ids = some_ids(*model);
  REQUIRE(ids.size() > 40);
  const auto vocab = static_cast<size_t>(model->config().vocab);
  std::vector<float> logits(ids.size() * vocab);
  trace_logits(*model, ids, logits.data());
  const std::vector<double> scores = score(*model, ids, 1);
  REQUIRE(scores.size() == ids.size() - 1);
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const float* row = logits.data() + i * vocab;
    long double sum = 0;
    for (size_t t = 0; t < vocab; ++t) sum += std::exp(static_cast<long double>(row[t]));
    const long double expected = row[ids[i + 1]] - std::log(sum);
    CHECK(scores[i] == doctest::Approx(static_cast<double>(expected)).epsilon(1e-13));
  }
}

TEST_CASE("scores and comparisons beside each other are those of each alone") {
  const auto first = open_demo(1, 7), second = open_demo(3, 16);
  std::vector<int32_t> ids = some_ids(*first);
  ids.resize(24);
  const std::vector<double> alone = score(*first, ids, 5);
  std::vector<std::vector<double>> results(6);
  std::vector<std::thread> callers;
  for (size_t i = 0; i < results.size(); ++i)
    callers.emplace_back([&, i] {
      // Both directions at once: neither waits for the other while it holds a model.
      if (i % 3 == 0)
        results[i] = score(i ? *first : *second, ids, 5);
      else if (i % 3 == 1)
        results[i] = compare(*first, *second, ids, 5).log_p;
      else
        results[i] = compare(*second, *first, ids, 5).log_q;
    });
  for (std::thread& t : callers) t.join();
  for (const auto& scores : results) CHECK(scores == alone);
  for (const double d : compare(*first, *second, ids, 5).divergence) CHECK(d == 0.0);
}

TEST_CASE("what cannot be scored is refused") {
  const auto model = open_demo(1, 16);
  CHECK_THROWS_AS(score(*model, {2, 5}, 0), Error);
  CHECK_THROWS_AS(score(*model, {2, 5}, 2), Error);
  CHECK_THROWS_AS(score(*model, {2, -1}, 1), Error);
  CHECK_THROWS_AS(score(*model, {}, 1), Error);
  CHECK_THROWS_AS(compare(*model, *model, {2, 5}, 2), Error);
  CHECK(score(*model, {2, 5}, 1).size() == 1);
}
