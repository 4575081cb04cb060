#include "choose/choose.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace {

using namespace gemtp;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Numbers without <random>, whose distributions differ between libraries.
struct Random {
  uint64_t state;
  uint64_t next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 11;
  }
  double uniform() { return (static_cast<double>(next()) + 0.5) * 0x1p-53; }
  int below(int n) { return static_cast<int>(uniform() * n); }
  float normal() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return static_cast<float>(radius * std::cos(6.283185307179586 * uniform()));
  }
};

std::vector<float> normal_logits(Random& random, int n, float spread) {
  std::vector<float> logits(n);
  for (float& x : logits) x = random.normal() * spread;
  return logits;
}

struct Request {
  std::vector<float> logits;
  SamplingParams params;
  std::vector<int32_t> suppressed;
  std::vector<int32_t> history;

  TokenHistory token_history() const {
    TokenHistory h(params.penalty_last_n);
    for (const int32_t id : history) h.push(id);
    return h;
  }
  Chooser chooser() const {
    return Chooser(params, suppressed, static_cast<int32_t>(logits.size()));
  }
};

/// What the header promises, computed plainly: everything sorted, probabilities in long double.
struct Kept {
  int32_t id;
  float logit;  // after penalties and bias
  long double probability;
};

/// Empty when the end of top-p is too near a token's cumulative probability to be sure.
std::optional<std::vector<Kept>> keep(const Request& r) {
  const SamplingParams& p = r.params;
  std::vector<float> logits = r.logits;
  std::map<int32_t, int> seen;
  const size_t window = p.penalty_last_n < 0 ? r.history.size() : p.penalty_last_n;
  for (size_t i = 0; i < r.history.size(); ++i) {
    if (i + window >= r.history.size()) ++seen[r.history[i]];
  }
  for (const auto& [id, count] : seen) {
    double x = logits[id];
    x = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
    logits[id] = static_cast<float>(x - p.presence_penalty -
                                    static_cast<double>(p.frequency_penalty) * count);
  }
  for (const auto& [id, bias] : p.logit_bias) logits[id] += bias;
  for (const int32_t id : r.suppressed) logits[id] = -kInf;

  std::vector<Kept> kept;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -kInf) kept.push_back({static_cast<int32_t>(i), logits[i], 0});
  }
  std::stable_sort(kept.begin(), kept.end(),
                   [](const Kept& a, const Kept& b) { return a.logit > b.logit; });
  if (p.top_k > 0 && kept.size() > static_cast<size_t>(p.top_k)) kept.resize(p.top_k);
  const long double max = kept[0].logit, temperature = p.temperature;
  const auto normalize = [&] {
    long double total = 0;
    for (Kept& k : kept) total += k.probability = std::exp((k.logit - max) / temperature);
    for (Kept& k : kept) k.probability /= total;
  };
  normalize();
  if (p.top_p < 1) {
    long double sum = 0;
    for (size_t i = 0; i < kept.size(); ++i) {
      sum += kept[i].probability;
      if (std::fabs(sum - p.top_p) < 1e-7L) return std::nullopt;
      if (sum >= p.top_p) {
        kept.resize(i + 1);
        break;
      }
    }
  }
  if (p.min_p > 0) {
    const long double least = kept[0].probability * p.min_p;
    while (kept.back().probability < least) kept.pop_back();
  }
  normalize();
  return kept;
}

/// The winner among `kept` with everybody's noise computed.
int32_t full_scan(const std::vector<Kept>& kept, const SamplingParams& p, int64_t position) {
  int32_t best = -1;
  double best_score = 0;
  for (const Kept& k : kept) {
    const double score = static_cast<double>(k.logit) / static_cast<double>(p.temperature) +
                         gumbel_noise(p.seed, position, k.id);
    if (best < 0 || score > best_score || (score == best_score && k.id < best)) {
      best = k.id;
      best_score = score;
    }
  }
  return best;
}

/// The probability of a larger chi-square statistic if `counts` were drawn from `probabilities`
/// (Wilson and Hilferty's approximation); 0 if something impossible was drawn.
double chi_square_p(const std::vector<int64_t>& counts, const std::vector<double>& probabilities) {
  int64_t draws = 0;
  for (const int64_t c : counts) draws += c;
  double statistic = 0, rest_expected = 0, rest_count = 0;
  int cells = 0;
  const auto add = [&](double expected, double count) {
    statistic += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = probabilities[i] * static_cast<double>(draws);
    if (expected == 0 && counts[i] > 0) return 0;
    if (expected < 5) {
      rest_expected += expected;
      rest_count += static_cast<double>(counts[i]);
      if (rest_expected < 5) continue;
      add(rest_expected, rest_count);
      rest_expected = rest_count = 0;
    } else {
      add(expected, static_cast<double>(counts[i]));
    }
  }
  const double k = cells - 1;
  const double z = (std::cbrt(statistic / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k));
  return 0.5 * std::erfc(z / std::sqrt(2.0));
}

constexpr int kDraws = 100000;
constexpr double kReject = 1e-6;

std::vector<double> probabilities(const Request& request) {
  std::vector<double> result(request.logits.size());
  const auto kept = keep(request);
  REQUIRE(kept);
  for (const Kept& k : *kept) result[k.id] = static_cast<double>(k.probability);
  return result;
}

std::vector<int64_t> draw_positions(const Request& request) {
  std::vector<int64_t> counts(request.logits.size());
  const TokenHistory history = request.token_history();
  Chooser chooser = request.chooser();
  const int64_t n = static_cast<int64_t>(request.logits.size());
  for (int64_t position = 0; position < kDraws; ++position) {
    ++counts[chooser.choose(request.logits.data(), nullptr, n, position, history)];
  }
  return counts;
}

void check_distribution(const Request& request) {
  const double p = chi_square_p(draw_positions(request), probabilities(request));
  CHECK(p > kReject);
  CHECK(p < 1 - kReject);
}

/// One position, many seeds.
void check_distribution_over_seeds(const Request& request) {
  std::vector<int64_t> counts(request.logits.size());
  const TokenHistory history = request.token_history();
  Request seeded = request;
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    seeded.params.seed = seed;
    ++counts[seeded.chooser().choose(request.logits.data(), nullptr,
                                     static_cast<int64_t>(counts.size()), 17, history)];
  }
  const double p = chi_square_p(counts, probabilities(request));
  CHECK(p > kReject);
  CHECK(p < 1 - kReject);
}

Request base_request() {
  Random random{11};
  Request r;
  r.logits = normal_logits(random, 150, 2.0f);
  r.params.temperature = 1.0f;
  r.params.seed = 42;
  return r;
}

ErrorKind error_kind(const std::function<void()>& function, std::string* message = nullptr) {
  try {
    function();
  } catch (const Error& e) {
    if (message) *message = e.what();
    return e.kind();
  }
  FAIL("no Error was thrown");
  return ErrorKind::kInternal;
}

}  // namespace

TEST_CASE("choices follow the softmax: temperatures") {
  Request r = base_request();
  for (const float temperature : {1.0f, 0.7f, 1.5f}) {
    CAPTURE(temperature);
    r.params.temperature = temperature;
    check_distribution(r);
    check_distribution_over_seeds(r);
  }
}

TEST_CASE("choices follow the softmax: filters") {
  Request r = base_request();
  SUBCASE("top-k") { r.params.top_k = 20; }
  SUBCASE("top-p") { r.params.top_p = 0.8f; }
  SUBCASE("min-p") { r.params.min_p = 0.05f; }
  SUBCASE("all") {
    r.params.temperature = 1.2f;
    r.params.top_k = 50;
    r.params.top_p = 0.9f;
    r.params.min_p = 0.02f;
  }
  check_distribution(r);
}

TEST_CASE("choices follow the softmax: penalties, bias, suppression") {
  Request r = base_request();
  Random random{12};
  for (int i = 0; i < 200; ++i) r.history.push_back(random.below(random.below(150) + 1));
  SUBCASE("repetition") { r.params.repetition_penalty = 1.5f; }
  SUBCASE("presence and frequency") {
    r.params.presence_penalty = 0.5f;
    r.params.frequency_penalty = 0.3f;
  }
  SUBCASE("window") {
    r.params.frequency_penalty = -0.4f;
    r.params.penalty_last_n = 50;
  }
  SUBCASE("bias") { r.params.logit_bias = {{7, 3.0f}, {20, -kInf}, {31, -2.5f}}; }
  SUBCASE("suppressed") { r.suppressed = {0, 149, 75, 7}; }
  SUBCASE("all") {
    r.params.repetition_penalty = 1.2f;
    r.params.presence_penalty = -0.2f;
    r.params.frequency_penalty = 0.1f;
    r.params.penalty_last_n = 100;
    r.params.logit_bias = {{7, 3.0f}, {20, -kInf}};
    r.params.top_p = 0.95f;
    r.suppressed = {3};
  }
  check_distribution(r);
}

TEST_CASE("the chi-square test can tell a wrong distribution") {
  const Request r = base_request();
  const std::vector<int64_t> counts = draw_positions(r);
  Request wrong = r;
  wrong.params.temperature = 1.05f;
  CHECK(chi_square_p(counts, probabilities(wrong)) < kReject);
  wrong = r;
  wrong.params.top_k = 120;
  CHECK(chi_square_p(counts, probabilities(wrong)) < kReject);
  wrong = r;
  wrong.params.logit_bias = {
      {std::max_element(r.logits.begin(), r.logits.end()) - r.logits.begin(), 0.1f}};
  CHECK(chi_square_p(counts, probabilities(wrong)) < kReject);
}

TEST_CASE("Gumbel noise is uniform and independent across tokens, positions and seeds") {
  // u = e^(-e^-g) in 16 bins, jointly for two neighbours in one key: 256 cells.
  const auto bin = [](double g) { return static_cast<int>(std::exp(-std::exp(-g)) * 16); };
  struct Step {
    uint64_t seed;
    int64_t position;
    int32_t token;
  };
  for (const Step& step : {Step{0, 0, 1}, Step{0, 0, 4}, Step{0, 1, 0}, Step{1, 0, 0},
                           Step{1, -1, 0}, Step{0, 1, -1}, Step{uint64_t{1} << 32, 0, 0}}) {
    CAPTURE(step.seed);
    CAPTURE(step.position);
    CAPTURE(step.token);
    for (const int walk : {0, 1, 2}) {  // the keys walk along tokens, positions or seeds
      std::vector<int64_t> counts(256);
      for (int i = 0; i < kDraws; ++i) {
        const uint64_t seed = walk == 2 ? 7 + 2 * i : 7;
        const int64_t position = walk == 1 ? 5 + 2 * i : 5;
        const int32_t token = walk == 0 ? 3 + 2 * i : 3;
        const int a = bin(gumbel_noise(seed, position, token));
        const int b =
            bin(gumbel_noise(seed + step.seed, position + step.position, token + step.token));
        ++counts[16 * a + b];
      }
      const double p = chi_square_p(counts, std::vector<double>(256, 1.0 / 256));
      CHECK(p > kReject);
      CHECK(p < 1 - kReject);
    }
  }
}

TEST_CASE("Gumbel noise stays within its bounds and keeps its bits") {
  double low = 0, high = 0, sum = 0;
  for (int i = 0; i < 1000000; ++i) {
    const double g = gumbel_noise(1, 2, i);
    low = std::min(low, g);
    high = std::max(high, g);
    sum += g;
  }
  CHECK(low >= kGumbelMin);
  CHECK(high <= kGumbelMax);
  CHECK(high > 11);
  CHECK(sum / 1e6 == doctest::Approx(0.5772156649).epsilon(0.01));
  CHECK(kGumbelMax == doctest::Approx(-std::log(-std::log1p(-0x1p-53))).epsilon(1e-14));
  CHECK(kGumbelMin == doctest::Approx(-std::log(-std::log(0x1p-53))).epsilon(1e-14));
  // Changing these changes every sampled text.
  CHECK(gumbel_noise(0, 0, 0) == 2.5465752189377393);
  CHECK(gumbel_noise(42, 1000, 262143) == 0.41373984436405242);
  CHECK(gumbel_noise(~uint64_t{0}, -1, 5) == -0.57827087957880863);
}

TEST_CASE("skipping tokens gives the winner of the full scan") {
  Random random{21};
  int compared = 0;
  for (int round = 0; round < 400; ++round) {
    Request r;
    const bool large = round % 40 == 0;
    const int n = large ? 50000 : 1 + random.below(1500);
    const float spreads[] = {0.0f, 0.01f, 1.0f, 4.0f, 30.0f};
    r.logits = normal_logits(random, n, spreads[round % 5]);
    if (round % 3 == 0) {  // few distinct values: ties everywhere
      for (float& x : r.logits) x = std::round(x);
    }
    if (round % 7 == 0) r.logits[random.below(n)] = 20;
    if (round % 11 == 0) {
      for (int i = 0; i < n / 2; ++i) r.logits[random.below(n)] = -kInf;
      r.logits[0] = 0;
    }
    r.params.temperature = static_cast<float>(std::exp(random.normal()));
    r.params.seed = random.next();
    if (random.below(3) == 0) r.params.top_k = 1 + random.below(n);
    if (random.below(3) == 0) r.params.top_k = 1 + random.below(60);
    if (random.below(2) == 0) r.params.top_p = static_cast<float>(random.uniform());
    if (random.below(5) == 0) r.params.top_p = 1 - 0.001f * static_cast<float>(random.uniform());
    if (random.below(3) == 0) r.params.min_p = static_cast<float>(random.uniform() * 0.2);
    if (random.below(4) == 0) {
      r.params.repetition_penalty = 1.3f;
      for (int i = 0; i < 30; ++i) r.history.push_back(random.below(n));
    }
    CAPTURE(round);
    const auto kept = keep(r);
    if (!kept) continue;
    ++compared;
    Chooser chooser = r.chooser();
    const TokenHistory history = r.token_history();
    for (int64_t position = 0; position < (large ? 3 : 20); ++position) {
      REQUIRE(chooser.choose(r.logits.data(), nullptr, n, position, history) ==
              full_scan(*kept, r.params, position));
    }
  }
  CHECK(compared > 350);
}

TEST_CASE("top-k, top-p and min-p end at the very token where the full sort ends") {
  // A token with much noise wins exactly when the filters keep it. So give the last token that is
  // kept, then the first that is not, the id with most noise, and all others ids with little.
  const int64_t position = 3;
  const int32_t vocab = 100000;
  SamplingParams p;
  p.temperature = 1;
  p.seed = 8;
  int32_t hot = 0;
  double most = kGumbelMin;
  for (int32_t id = 0; id < vocab; ++id) {
    const double g = gumbel_noise(p.seed, position, id);
    if (g > most) hot = id, most = g;
  }
  REQUIRE(most > 8);

  Random random{22};
  int checked = 0;
  for (const int n : {2, 40, 700, 6000, 30000}) {
    std::vector<int32_t> ids;
    for (int32_t id = 0; static_cast<int>(ids.size()) < n; ++id) {
      if (id == hot || gumbel_noise(p.seed, position, id) < 1) ids.push_back(id);
    }
    if (!std::binary_search(ids.begin(), ids.end(), hot)) {
      ids.back() = hot;
      std::sort(ids.begin(), ids.end());
    }
    const auto hot_at = std::lower_bound(ids.begin(), ids.end(), hot) - ids.begin();
    for (const float width : {6.0f, 0.5f, 0.002f}) {  // all logits within this
      Request r;
      for (int i = 0; i < n; ++i) {
        r.logits.push_back(width * static_cast<float>(i + random.uniform() * 0.5) /
                           static_cast<float>(n));
      }
      for (int i = n - 1; i > 0; --i) std::swap(r.logits[i], r.logits[random.below(i + 1)]);
      std::vector<float> sorted = r.logits;
      std::sort(sorted.begin(), sorted.end(), std::greater<>());
      for (int round = 0; round < 12; ++round) {
        r.params = p;
        if (round % 3 == 0) r.params.top_k = 1 + random.below(n - 1);
        if (round % 3 == 1 || round == 6) {
          r.params.top_p = static_cast<float>(random.uniform());
          if (round % 2) r.params.top_p = std::sqrt(r.params.top_p);
        }
        if (round % 3 == 2) {
          r.params.min_p = static_cast<float>(std::exp(-width * random.uniform()));
        }
        const auto kept = keep(r);
        if (!kept || kept->size() == static_cast<size_t>(n)) continue;
        ++checked;
        CAPTURE(n);
        CAPTURE(width);
        CAPTURE(round);
        Chooser chooser(r.params, {}, vocab);
        for (const size_t rank : {kept->size() - 1, kept->size()}) {
          std::vector<float> logits = r.logits;
          const auto at = std::find(logits.begin(), logits.end(), sorted[rank]);
          std::swap(*at, logits[hot_at]);
          const int32_t id = chooser.choose(logits.data(), ids.data(), n, position, TokenHistory());
          REQUIRE((id == hot) == (rank < kept->size()));
        }
      }
    }
  }
  CHECK(checked > 100);
}

TEST_CASE("top-p on equal probabilities") {
  const auto chosen = [](std::vector<float> logits, float top_p, int draws = 200) {
    Request r;
    r.logits = std::move(logits);
    r.params.temperature = 1;
    r.params.top_p = top_p;
    Chooser chooser = r.chooser();
    std::vector<int64_t> counts(r.logits.size());
    for (int64_t position = 0; position < draws; ++position) {
      ++counts[chooser.choose(r.logits.data(), nullptr, static_cast<int64_t>(counts.size()),
                              position, TokenHistory())];
    }
    return static_cast<int>(counts.size() - std::count(counts.begin(), counts.end(), 0));
  };
  CHECK(chosen({1, 1, 1, 1}, 0.5f) == 2);
  CHECK(chosen({1, 1, 1, 1}, 0.5000001f) == 3);
  CHECK(chosen({1, 1, 1, 1}, 0.75f) == 3);
  CHECK(chosen({1, 1, 1, 1}, 1e-30f) == 1);
  CHECK(chosen({1, 1, 1, 1}, 0.9999999f) == 4);
  CHECK(chosen(std::vector<float>(1000, -3.0f), 0.25f, 5000) == 250);
  CHECK(chosen(std::vector<float>(10240, 5.0f), 0x1p-10f) == 10);
  CHECK(chosen({0, 50, 0}, 0.999f) == 1);
}

TEST_CASE("greedy is the argmax, ties to the smaller id") {
  SamplingParams greedy;
  const TokenHistory none;
  std::vector<float> logits(1000, -1.0f);
  Chooser chooser(greedy, {}, 1000);
  const auto choose = [&] { return chooser.choose(logits.data(), nullptr, 1000, 5, none); };
  CHECK(choose() == 0);
  logits[999] = 2;
  CHECK(choose() == 999);
  logits[300] = 2;
  CHECK(choose() == 300);
  logits.assign(1000, -1.0f);
  logits[400] = 0.0f;
  logits[200] = -0.0f;
  CHECK(choose() == 200);
  std::swap(logits[400], logits[200]);
  CHECK(choose() == 200);

  Random random{31};
  for (int round = 0; round < 200; ++round) {
    const int n = 1 + random.below(1000);
    const std::vector<float> x = normal_logits(random, n, 1);
    REQUIRE(chooser.choose(x.data(), nullptr, n, round, none) ==
            std::max_element(x.begin(), x.end()) - x.begin());
  }
}

TEST_CASE("greedy sees suppression, penalties and bias") {
  std::vector<float> logits = {5, 4, 3, 2, 1, -1};
  TokenHistory history;
  const auto choose = [&](SamplingParams p, std::vector<int32_t> suppressed = {}) {
    return Chooser(p, suppressed, 6).choose(logits.data(), nullptr, 6, 0, history);
  };
  CHECK(choose({}, {0, 1}) == 2);
  SamplingParams p;
  p.logit_bias = {{3, 10.0f}};
  CHECK(choose(p) == 3);
  p.logit_bias = {{3, 10.0f}, {3, -kInf}, {3, 5.0f}};  // a ban stays a ban
  CHECK(choose(p) == 0);
  for (const int32_t id : {0, 0, 0, 1}) history.push(id);
  p = {};
  p.repetition_penalty = 2;  // 2.5, 2, 3, ...
  CHECK(choose(p) == 2);
  p = {};
  p.presence_penalty = 0.5f;  // 4.5, 3.5, 3
  CHECK(choose(p) == 0);
  p.frequency_penalty = 0.4f;  // 3.3, 3.1, 3
  CHECK(choose(p) == 0);
  p.frequency_penalty = 0.5f;  // 3, 3, 3
  CHECK(choose(p) == 0);
  p.frequency_penalty = 0.75f;  // 2.25, 2.75, 3
  CHECK(choose(p) == 2);
  // A negative logit is multiplied.
  logits = {-1, -1.5f, -9, -9, -9, -9};
  p = {};
  p.repetition_penalty = 4;  // -4, -6, -9
  CHECK(choose(p) == 0);
  p.repetition_penalty = 10;
  CHECK(choose(p) == 2);
  // Overflow cannot make an infinite logit, nor a NaN.
  logits = {3e38f, 1, -3e38f, 0, 0, 0};
  p = {};
  p.repetition_penalty = 2e-38f;
  p.frequency_penalty = -3e38f;
  p.logit_bias = {{0, 3e38f}, {1, 1.0f}};
  CHECK(choose(p) == 0);
  p.temperature = 1;
  CHECK(choose(p) <= 1);
}

TEST_CASE("a subset of the ids chooses as the whole vocabulary does") {
  Random random{41};
  int inside = 0;
  for (int round = 0; round < 300; ++round) {
    const int n = 2000;
    Request r;
    r.logits = normal_logits(random, n, 3);
    r.params.temperature = round % 3 == 0 ? 0.0f : 0.8f;
    r.params.seed = random.next();
    if (round % 2) {
      r.params.repetition_penalty = 1.1f;
      r.params.frequency_penalty = 0.2f;
      r.params.logit_bias = {{random.below(n), 4.0f}, {random.below(n), -kInf}};
      r.suppressed = {random.below(n)};
      for (int i = 0; i < 50; ++i) r.history.push_back(random.below(n));
    }
    Chooser chooser = r.chooser();
    const TokenHistory history = r.token_history();
    const int32_t whole = chooser.choose(r.logits.data(), nullptr, n, round, history);
    std::vector<int32_t> ids;
    std::vector<float> logits;
    for (int32_t id = 0; id < n; ++id) {
      if (id == whole || random.below(4) == 0) {
        ids.push_back(id);
        logits.push_back(r.logits[id]);
      }
    }
    const auto size = static_cast<int64_t>(ids.size());
    REQUIRE(chooser.choose(logits.data(), ids.data(), size, round, history) == whole);
    // Without the winner another of the ids is chosen.
    const auto at = std::lower_bound(ids.begin(), ids.end(), whole) - ids.begin();
    ids.erase(ids.begin() + at);
    logits.erase(logits.begin() + at);
    const int32_t other = chooser.choose(logits.data(), ids.data(), size - 1, round, history);
    REQUIRE(std::binary_search(ids.begin(), ids.end(), other));
    ++inside;
  }
  CHECK(inside == 300);
}

TEST_CASE("filters work on a list of ids") {
  const std::vector<int32_t> ids = {10, 20, 30, 40};
  const std::vector<float> logits = {1, 3, 2, 3};
  SamplingParams p;
  p.temperature = 100;  // nearly uniform over what is left
  p.top_k = 3;
  Chooser chooser(p, {30}, 100);
  std::map<int32_t, int> counts;
  for (int position = 0; position < 300; ++position) {
    ++counts[chooser.choose(logits.data(), ids.data(), 4, position, TokenHistory())];
  }
  CHECK(counts.size() == 3);
  CHECK(counts.count(30) == 0);
  p.top_k = 1;  // the smaller id of two equal logits
  CHECK(Chooser(p, {}, 100).choose(logits.data(), ids.data(), 4, 0, TokenHistory()) == 20);
}

TEST_CASE("extreme temperatures and logits") {
  Random random{51};
  const std::vector<float> logits = normal_logits(random, 3000, 5);
  const auto argmax = std::max_element(logits.begin(), logits.end()) - logits.begin();
  SamplingParams p;
  for (const float temperature : {1e-45f, 1e-30f, 1e-6f, 1e10f, 3e38f}) {
    for (const float top_p : {1.0f, 0.9f}) {
      p.temperature = temperature;
      p.top_p = top_p;
      const int32_t id =
          Chooser(p, {}, 3000).choose(logits.data(), nullptr, 3000, 9, TokenHistory());
      if (temperature < 1e-5f) CHECK(id == argmax);
      CHECK(id >= 0);
      CHECK(id < 3000);
    }
  }
  const std::vector<float> huge = {-3e38f, 3e38f, -kInf, 2.9e38f};
  p.temperature = 1;
  CHECK(Chooser(p, {}, 4).choose(huge.data(), nullptr, 4, 0, TokenHistory()) == 1);
}

TEST_CASE("equal scores go to the smaller id") {
  // Over so small a temperature the noise is below the rounding of the scores, so all three tie.
  std::vector<float> logits(1000, 1.0f);
  logits[900] = logits[300] = logits[310] = 3.0f;
  SamplingParams p;
  p.temperature = 1e-25f;
  const auto check = [&] {
    Chooser chooser(p, {}, 1000);
    for (int64_t position = 0; position < 50; ++position) {
      REQUIRE(chooser.choose(logits.data(), nullptr, 1000, position, TokenHistory()) == 300);
    }
  };
  check();
  p.top_k = 2;
  check();
  p.top_k = 0;
  p.top_p = 0.9f;
  check();
  p.temperature = 1e-35f;
  check();
}

TEST_CASE("damaged logits are an error of the model") {
  for (const float temperature : {0.0f, 1.0f}) {
    for (const int n : {7, 1000}) {
      SamplingParams p;
      p.temperature = temperature;
      Chooser chooser(p, {3}, n);
      const auto choose = [&](const std::vector<float>& x) {
        return error_kind([&] { chooser.choose(x.data(), nullptr, n, 12, TokenHistory()); });
      };
      std::vector<float> logits(n, 1.0f);
      for (const float bad : {kNan, -kNan, kInf}) {
        for (const int where : {0, 3, n - 1}) {
          logits.assign(n, 1.0f);
          logits[where] = bad;
          CHECK(choose(logits) == ErrorKind::kModel);
        }
      }
      CHECK(choose(std::vector<float>(n, -kInf)) == ErrorKind::kModel);
      // One finite logit is enough.
      logits.assign(n, -kInf);
      logits[n - 1] = -5;
      CHECK(chooser.choose(logits.data(), nullptr, n, 0, TokenHistory()) == n - 1);
    }
  }
}

TEST_CASE("banning every token is an error of the arguments") {
  SamplingParams p;
  p.logit_bias = {{0, -kInf}, {2, -kInf}};
  const std::vector<float> logits = {1, 2, 3};
  Chooser chooser(p, {1}, 3);
  std::string message;
  CHECK(error_kind([&] { chooser.choose(logits.data(), nullptr, 3, 0, TokenHistory()); },
                   &message) == ErrorKind::kArgument);
  CHECK(message.find("banned") != std::string::npos);
}

TEST_CASE("an option is set by its name, as exactly as it is kept") {
  SamplingParams p;
  set_option(&p, "temperature", 0.7);
  set_option(&p, "top_k", 40);
  CHECK(p.temperature == 0.7f);
  CHECK(p.top_k == 40);
  std::string message;
  const auto refused = [&](const char* name, double given, const char* said) {
    CAPTURE(name);
    CHECK(error_kind([&] { set_option(&p, name, given); }, &message) == ErrorKind::kArgument);
    CHECK(message.find(std::string(name) + " is " + said + " but must be ") == 0);
  };
  refused("temperature", 1e39, "1e+39, beyond single precision,");
  refused("repetition_penalty", 1e-50, "1e-50, beyond single precision,");
  refused("top_p", 1.0000001, "1.0000001");
  refused("min_p", 0.99999999, "0.99999999");  // 1 as a float
  refused("top_k", 2.5, "2.5");
  refused("top_k", 4e9, "4000000000");
  refused("top_p", 20, "20");
  refused("penalty_last_n", kNan, "nan");
  CHECK(p.temperature == 0.7f);
  CHECK_THROWS_AS(set_option(&p, "temprature", 1), Error);
}

TEST_CASE("validate names the parameter that is out of its domain") {
  const auto refused = [](const char* name, auto&& set) {
    SamplingParams p;
    set(p);
    std::string message;
    CAPTURE(name);
    CHECK(error_kind([&] { validate(p, 100); }, &message) == ErrorKind::kArgument);
    CHECK(message.find(name) == 0);
    CHECK_THROWS_AS(Chooser(p, {}, 100), Error);
  };
  for (const float x : {-1.0f, -1e-30f, kNan, kInf, -kInf}) {
    refused("temperature", [=](SamplingParams& p) { p.temperature = x; });
  }
  refused("top_k", [](SamplingParams& p) { p.top_k = -2; });
  for (const float x : {-1e-30f, -0.5f, 1.0001f, kNan, kInf}) {
    refused("top_p", [=](SamplingParams& p) { p.top_p = x; });
  }
  for (const float x : {-0.1f, 1.0f, kNan, kInf}) {
    refused("min_p", [=](SamplingParams& p) { p.min_p = x; });
  }
  for (const float x : {0.0f, -1.0f, kNan, kInf}) {
    refused("repetition_penalty", [=](SamplingParams& p) { p.repetition_penalty = x; });
  }
  for (const float x : {kNan, kInf, -kInf}) {
    refused("presence_penalty", [=](SamplingParams& p) { p.presence_penalty = x; });
    refused("frequency_penalty", [=](SamplingParams& p) { p.frequency_penalty = x; });
  }
  refused("penalty_last_n", [](SamplingParams& p) { p.penalty_last_n = -2; });
  for (const int32_t id : {-1, 100}) {
    refused("logit_bias", [=](SamplingParams& p) { p.logit_bias = {{id, 1.0f}}; });
  }
  for (const float x : {kNan, kInf}) {
    refused("logit_bias", [=](SamplingParams& p) { p.logit_bias = {{5, x}}; });
  }

  SamplingParams good;
  good.temperature = 2;
  good.top_k = 1000;
  good.top_p = 1e-20f;
  good.min_p = 0.999f;
  good.repetition_penalty = 0.5f;
  good.presence_penalty = -2;
  good.frequency_penalty = 2;
  good.penalty_last_n = 0;
  good.logit_bias = {{0, -kInf}, {99, 1e30f}};
  CHECK_NOTHROW(validate(good, 100));
  CHECK_NOTHROW(validate(SamplingParams(), 1));
  CHECK_THROWS_AS(Chooser(SamplingParams(), {}, 0), Error);
}

TEST_CASE("a history counts the latest tokens, and pop undoes push") {
  Random random{61};
  for (const int32_t last_n : {-1, 0, 1, 3, 20}) {
    CAPTURE(last_n);
    TokenHistory history(last_n);
    std::vector<int32_t> tokens;
    for (int step = 0; step < 2000; ++step) {
      if (!tokens.empty() && random.below(100) < (step % 200 < 100 ? 30 : 60)) {
        history.pop();
        tokens.pop_back();
      } else {
        tokens.push_back(random.below(8));
        history.push(tokens.back());
      }
      std::unordered_map<int32_t, int32_t> counts;
      const size_t window = last_n < 0 ? tokens.size() : last_n;
      for (size_t i = tokens.size() - std::min(tokens.size(), window); i < tokens.size(); ++i) {
        ++counts[tokens[i]];
      }
      REQUIRE(history.counts() == counts);
      REQUIRE(history.size() == static_cast<int64_t>(tokens.size()));
    }
  }
  TokenHistory empty;
  CHECK_THROWS_AS(empty.pop(), Error);
}
