#include <doctest/doctest.h>

#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "choose/choose.h"
#include "generate/generation.h"
#include "toy_constraint.h"

using namespace gemtp;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::shared_ptr<Engine> open_demo(int threads = 1) {
  const std::string data = GEMTP_SOURCE_DIR "/python/gemtp_native/data/";
  EngineOptions options;
  options.threads = threads;
  options.context = 256;
  return Engine::open(data + "target.gguf", data + "drafter.gguf", options);
}

/// A mask that is given.
class Fixed : public Constraint {
 public:
  explicit Fixed(std::vector<bool> allowed) : allowed_(std::move(allowed)) {}
  void push(const int32_t*, int64_t) override {}
  void pop(int64_t) override {}
  void mask(uint32_t* words, int64_t) override {
    for (size_t t = 0; t < allowed_.size(); ++t)
      if (allowed_[t]) words[t / 32] |= uint32_t{1} << (t % 32);
  }
  int64_t allowed(const int32_t* tokens, int64_t n) override {
    int64_t i = 0;
    while (i < n && allowed_[static_cast<size_t>(tokens[i])]) ++i;
    return i;
  }
  std::vector<int32_t> forced() override { return {}; }
  bool complete() override { return false; }

 private:
  std::vector<bool> allowed_;
};

struct Result {
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason finish;
  GenerationStats stats;
  std::vector<DraftSource> sources;
};

Result run(const std::shared_ptr<Engine>& engine, const std::string& prompt,
           const GenerationParams& params) {
  Generation generation(engine, engine->model().need_tokenizer().encode(prompt, true, false),
                        params);
  Result out;
  while (!generation.done())
    for (const Emitted& e : generation.step()) {
      out.tokens.push_back(e.id);
      out.text += e.text;
      out.sources.push_back(e.source);
    }
  out.text += generation.tail();
  out.finish = generation.finish_reason();
  out.stats = generation.stats();
  return out;
}

const char* kPattern = "def @@_##(value, other_value):\n    return value + ##\n";

SamplingParams sampling(int kind) {
  SamplingParams p;
  p.seed = static_cast<uint64_t>(kind);
  p.temperature = kind ? 0.8f : 0.0f;
  if (kind == 2) p.top_k = 5;
  if (kind == 3) p.top_p = 0.8f;
  if (kind == 4) {
    p.min_p = 0.1f;
    p.repetition_penalty = 1.2f;
    p.logit_bias = {{40, 1.5f}};
  }
  return p;
}

}  // namespace

TEST_CASE("a masked choice is the choice among logits of which all others are -infinity") {
  std::mt19937 random(7);
  const auto uniform = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  std::normal_distribution<float> normal(0, 4);
  for (int trial = 0; trial < 3000; ++trial) {
    const int n = 1 + uniform(trial % 2 ? 70 : 3000);
    const int sparsity = std::vector<int>{1, 2, 9, 40, 500}[static_cast<size_t>(uniform(5))];
    std::vector<float> logits(static_cast<size_t>(n));
    std::vector<bool> allowed(static_cast<size_t>(n));
    for (float& x : logits) x = uniform(20) ? normal(random) : -kInf;
    for (int i = 0; i < n; ++i)
      allowed[static_cast<size_t>(i)] = sparsity == 1 ? uniform(9) > 0 : uniform(sparsity) == 0;
    const auto sure = static_cast<size_t>(uniform(n));
    allowed[sure] = true;
    logits[sure] = normal(random);
    std::vector<int32_t> ids;  // an ordered head's
    if (trial % 3 == 0)
      for (int i = 0; i < n; ++i)
        if (i == static_cast<int>(sure) || uniform(3) == 0) ids.push_back(i);
    std::vector<float> given = logits, masked;
    if (!ids.empty()) {
      given.clear();
      for (const int32_t id : ids) given.push_back(logits[static_cast<size_t>(id)]);
    }
    for (size_t i = 0; i < given.size(); ++i) {
      const size_t id = ids.empty() ? i : static_cast<size_t>(ids[i]);
      masked.push_back(allowed[id] ? given[i] : -kInf);
    }
    SamplingParams params = sampling(uniform(5));
    params.logit_bias.clear();
    if (uniform(3) == 0) params.suppress_tokens = {static_cast<int32_t>((sure + 1) % n)};
    if (n == 1) params.suppress_tokens.clear();
    TokenHistory free, constrained;
    for (int i = 0; i < 5; ++i) {
      const int32_t id = uniform(n);
      free.push(id);
      constrained.push(id);
    }
    ConstrainedText text(std::make_shared<Fixed>(allowed), n);
    constrained.constrain(&text);
    Chooser chooser(params, {}, n);
    const int32_t* list = ids.empty() ? nullptr : ids.data();
    const auto count = static_cast<int64_t>(given.size());
    const int32_t expected = chooser.choose(masked.data(), list, count, trial, free);
    const int32_t chosen = chooser.choose(given.data(), list, count, trial, constrained);
    REQUIRE(chosen == expected);
    REQUIRE(allowed[static_cast<size_t>(chosen)]);
    const double p = chooser.probability(masked.data(), list, count, chosen, free);
    const double q = chooser.probability(given.data(), list, count, chosen, constrained);
    REQUIRE(p == doctest::Approx(q).epsilon(1e-4));
  }
}

TEST_CASE("a mask that leaves no token is an error that says so") {
  ConstrainedText text(std::make_shared<Fixed>(std::vector<bool>(100, false)), 100);
  TokenHistory history;
  history.constrain(&text);
  const std::vector<float> logits(100, 1.0f);
  Chooser chooser({}, {}, 100);
  CHECK_THROWS_WITH_AS(chooser.choose(logits.data(), nullptr, 100, 7, history),
                       doctest::Contains("the grammar lets no token"), Error);
  std::vector<bool> one(100, false);
  one[3] = true;
  SamplingParams params;
  params.suppress_tokens = {3};
  ConstrainedText banned(std::make_shared<Fixed>(one), 100);
  history.constrain(&banned);
  CHECK_THROWS_WITH_AS(Chooser(params, {}, 100).choose(logits.data(), nullptr, 100, 7, history),
                       doctest::Contains("that the grammar lets come"), Error);
}

TEST_CASE("a constrained text goes forward and back") {
  const auto engine = open_demo();
  const Tokenizer& tokenizer = engine->model().need_tokenizer();
  auto toy = std::make_shared<ToyConstraint>(tokenizer, "##-##");
  ConstrainedText text(toy, tokenizer.vocab_size());
  const int32_t one = tokenizer.encode("1", false, false).at(0);
  const int32_t two = tokenizer.encode("2", false, false).at(0);
  const int32_t dash = tokenizer.encode("-", false, false).at(0);
  CHECK(text.allows(one));
  CHECK_FALSE(text.allows(dash));
  CHECK(text.allowed({one, two, dash, dash}) == 3);
  text.push(one);
  text.push(two);
  CHECK(text.forced() == std::vector<int32_t>{dash});
  CHECK(in_mask(text.mask(), dash));
  CHECK_FALSE(in_mask(text.mask(), one));
  text.pop();
  CHECK(in_mask(text.mask(), one));
  text.push(two);  // as before: what was known of it still holds
  const int masks = toy->masks;
  CHECK(in_mask(text.mask(), dash));
  CHECK(toy->masks == masks);
  text.pop();
  text.push(one);  // another one
  CHECK(in_mask(text.mask(), dash));
  CHECK(toy->masks == masks + 1);
  for (const int32_t id : {dash, two, two}) text.push(id);
  CHECK(text.complete());
  CHECK(in_mask(text.mask(), tokenizer.end_tokens().at(0)));
  CHECK_FALSE(toy->wrong());
}

TEST_CASE("under a constraint the text is the same at every depth") {
  const auto engine = open_demo(2);
  const Tokenizer& tokenizer = engine->model().need_tokenizer();
  int64_t forced = 0;
  for (int kind = 0; kind < 5; ++kind)
    for (const int64_t most : {int64_t{100}, int64_t{7}}) {
      GenerationParams params;
      params.sampling = sampling(kind);
      params.max_tokens = most;
      const auto at_depth = [&](int draft) {
        auto toy = std::make_shared<ToyConstraint>(tokenizer, kPattern);
        params.draft = draft;
        params.constraint = toy;
        engine->sequences().clear();
        const Result out = run(engine, "import math\n\n", params);
        CHECK_FALSE(toy->wrong());
        return out;
      };
      const Result plain = at_depth(0);
      CHECK(plain.stats.drafted == 0);
      if (most == 100) {
        CHECK(plain.text.size() == std::string(kPattern).size());
        CHECK(plain.text.substr(0, 4) == "def ");
        CHECK(plain.finish == FinishReason::kStop);
      } else {
        CHECK(plain.finish == FinishReason::kLength);
      }
      for (const int draft : {kAutoDraft, 1, 2, 5, 15}) {
        const Result drafted = at_depth(draft);
        CHECK(drafted.tokens == plain.tokens);
        CHECK(drafted.text == plain.text);
        CHECK(drafted.finish == plain.finish);
        CHECK(drafted.stats.grammar_drafted >= drafted.stats.grammar_accepted);
        forced += std::count(drafted.sources.begin(), drafted.sources.end(), DraftSource::kGrammar);
        CHECK(drafted.stats.rounds <= plain.stats.rounds);
      }
    }
  CHECK(forced > 100);
}

TEST_CASE("forced tokens are drafts without a drafter too") {
  const std::string data = GEMTP_SOURCE_DIR "/python/gemtp_native/data/";
  EngineOptions options;
  options.threads = 1;
  options.context = 256;
  const auto engine = Engine::open(data + "target.gguf", "", options);
  GenerationParams params;
  params.draft = 0;
  params.constraint = std::make_shared<ToyConstraint>(engine->model().need_tokenizer(), kPattern);
  const Result plain = run(engine, "import math\n\n", params);
  params.draft = kAutoDraft;
  params.constraint = std::make_shared<ToyConstraint>(engine->model().need_tokenizer(), kPattern);
  const Result drafted = run(engine, "import math\n\n", params);
  CHECK(drafted.tokens == plain.tokens);
  CHECK(drafted.stats.grammar_accepted > 0);
  CHECK(drafted.stats.rounds < plain.stats.rounds);
}

TEST_CASE("constrained sequences that share passes get the tokens they get alone") {
  const std::vector<std::string> patterns = {kPattern, "####-##-##\n", "@ = [#, #, ##, ###]\n",
                                             "x"};
  const auto engine = open_demo(2);
  const auto job = [&](size_t i) {
    GenerationParams params;
    params.sampling = sampling(static_cast<int>(i));
    params.draft = i % 2 ? 3 : kAutoDraft;
    if (i < patterns.size())
      params.constraint =
          std::make_shared<ToyConstraint>(engine->model().need_tokenizer(), patterns[i]);
    return run(engine, "import math\n\n", params).tokens;
  };
  std::vector<std::vector<int32_t>> alone, together(patterns.size() + 1);
  for (size_t i = 0; i <= patterns.size(); ++i) alone.push_back(job(i));
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::vector<std::thread> threads;
    for (size_t i = 0; i < together.size(); ++i)
      threads.emplace_back([&, i] { together[i] = job(i); });
    for (std::thread& t : threads) t.join();
    CHECK(together == alone);
  }
}
