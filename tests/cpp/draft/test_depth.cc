// Tests the depth control with simulated machines and drafters, for which the best depth is known.
#include "draft/depth.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "base/error.h"

using namespace gemtp;

namespace {

// Times of passes over 1 to 16 rows, in units of the first.
using Curve = std::vector<double>;

const Curve kAvx2 = {1,    1.04, 1.20, 1.37, 1.70, 1.95, 2.20, 2.45,
                     2.80, 3.05, 3.30, 3.50, 3.85, 4.10, 4.30, 4.50};
const Curve kVnni = {1,    1.01, 1.03, 1.07, 1.14, 1.21, 1.30, 1.40,
                     1.50, 1.60, 1.70, 1.80, 1.90, 2.00, 2.10, 2.20};
const Curve kExperts = {1,    1.30, 1.70, 2.09, 2.50, 2.90, 3.30, 3.70,
                        4.05, 4.40, 4.80, 5.20, 5.55, 5.90, 6.25, 6.60};
const Curve kDearExperts = {1,    1.42, 1.85, 2.28, 2.70, 3.10, 3.50, 3.90,
                            4.30, 4.70, 5.10, 5.50, 5.90, 6.20, 6.50, 6.90};

struct Machine {
  Curve curve = kAvx2;
  double draft = 0.012;  // seconds of a step, in units of a plain pass
  double noise = 0.05;   // of a single time
  double wander = 0.02;  // of the speed, from pass to pass
  double outliers = 0.01;
  double second = 0.05;  // of a plain pass
  double experts = 0;    // share of a token's bytes that are those of 8 of 128 experts

  BytesRead bytes() const {
    BytesRead out{draft};
    for (int m = 1; m <= 16; ++m)
      out.verify[m - 1] = 1 + experts * (16 * (1 - std::pow(1 - 1.0 / 16, m)) - 1);
    return out;
  }
};

// Whether the drafter's token for a position of the text is right, and what it says of it.
struct Draft {
  bool right;
  double probability;
};
using Drafter = std::function<Draft(int64_t position, std::mt19937_64&)>;

Drafter even(double share) {
  return [share](int64_t, std::mt19937_64& random) {
    return Draft{std::uniform_real_distribution<>()(random) < share, 0.99};
  };
}

Drafter switching(double a, double b, int64_t every) {
  return [=](int64_t position, std::mt19937_64& random) {
    const double share = position / every % 2 == 0 ? a : b;
    return Draft{std::uniform_real_distribution<>()(random) < share, 0.99};
  };
}

// Right as often as it says, and it says all sorts of things.
Drafter honest() {
  return [](int64_t, std::mt19937_64& random) {
    std::normal_distribution<> normal(1.2, 2.5);
    const double p = 1 / (1 + std::exp(-normal(random)));
    return Draft{std::uniform_real_distribution<>()(random) < p, p};
  };
}

struct Clock {
  const Machine& machine;
  std::mt19937_64 random{7};
  double speed = 0;

  double measured(double units) {
    std::normal_distribution<> normal;
    speed = 0.98 * speed + machine.wander * normal(random);
    double t = units * machine.second * std::exp(speed + machine.noise * normal(random));
    if (std::uniform_real_distribution<>()(random) < machine.outliers) t *= 5;
    return t;
  }
};

struct Result {
  double units = 0;  // time without noise, in plain passes
  int64_t tokens = 0;
  int64_t drafted = 0;
  double rate() const { return static_cast<double>(tokens) / units; }
};

constexpr int kAuto = -1;

Result simulate(const Machine& machine, const Drafter& drafter, int64_t tokens, int fixed,
                DepthEstimates& estimates, uint64_t seed) {
  Clock clock{machine, std::mt19937_64(seed + 1)};
  DepthControl control(estimates, true);
  Result r;
  while (r.tokens < tokens) {
    // The same text for every depth: what is right is a function of the position.
    const auto draft_at = [&](int j) {
      std::mt19937_64 random(seed * 1000003 + static_cast<uint64_t>(r.tokens + j));
      return drafter(r.tokens + j, random);
    };
    int depth = fixed, steps = fixed;
    if (fixed < 0) {
      control.begin(0, static_cast<int>(std::min<int64_t>(15, tokens - r.tokens - 1)), 0, 0);
      for (steps = 0; control.more(); ++steps) control.drafted(draft_at(steps).probability);
      depth = control.depth();
    }
    int agreed = 0;
    while (agreed < steps && agreed <= depth && draft_at(agreed).right) ++agreed;
    const int accepted = std::min(agreed, depth);
    const double draft = steps * machine.draft, verify = machine.curve[depth];
    if (fixed < 0) {
      RoundOutcome o;
      o.draft_seconds = steps ? clock.measured(draft) : 0;
      o.verify_seconds = clock.measured(verify);
      o.rows = depth + 1;
      o.drafter_agreed = agreed;
      o.drafter_missed = agreed < steps && agreed <= accepted;
      control.end(o);
    }
    r.units += draft + verify;
    r.tokens += accepted + 1;
    r.drafted += steps;
  }
  return r;
}

struct Comparison {
  double over_best, over_plain;  // of rates, auto over others
  int best;                      // fixed depth
};

// Over several texts of `tokens`. warm: each behind another text, as in a program that has been
// running; otherwise with nothing known of machine and drafter.
Comparison compare(const Machine& machine, const Drafter& drafter, int64_t tokens, bool warm) {
  constexpr int kTexts = 12;
  std::array<double, 16> fixed{};  // [depth] units a token, summed
  double automatic = 0;
  const auto cost = [](const Result& r) { return r.units / static_cast<double>(r.tokens); };
  for (uint64_t text = 0; text < kTexts; ++text) {
    DepthEstimates estimates(machine.bytes());
    for (int depth = 0; depth < 16; ++depth)
      fixed[depth] += cost(simulate(machine, drafter, tokens, depth, estimates, text));
    if (warm) simulate(machine, drafter, 256, kAuto, estimates, text + 1000);
    automatic += cost(simulate(machine, drafter, tokens, kAuto, estimates, text));
  }
  const auto best = std::min_element(fixed.begin(), fixed.end());
  return {*best / automatic, fixed[0] / automatic, static_cast<int>(best - fixed.begin())};
}

struct Named {
  const char* name;
  Machine machine;
};

const Named kMachines[] = {
    {"avx2", {}},
    {"vnni", {kVnni}},
    {"experts", {kExperts, 0.1, 0.05, 0.02, 0.01, 0.05, 0.37}},
    {"dear experts", {kDearExperts, 0.12, 0.05, 0.02, 0.01, 0.05, 0.37}},
    {"plain head", {kAvx2, 0.045}},
    {"noisy", {kAvx2, 0.012, 0.12, 0.06, 0.05}},
};

}  // namespace

TEST_CASE("automatic depth comes close to the best fixed one" * doctest::test_suite("long")) {
  for (const auto& [name, machine] : kMachines) {
    for (double share : {0.0, 0.1, 0.2, 0.4, 0.6, 0.75, 0.9, 0.97}) {
      const Comparison c = compare(machine, even(share), 512, true);
      CAPTURE(name);
      CAPTURE(share);
      CAPTURE(c.best);
      // Near certainty, and where times say little, a few wrong rounds are the price of finding
      // out.
      const bool hard = share > 0.9 || machine.noise > 0.1;
      CHECK(c.over_best >= (hard ? 0.94 : 0.97));
      CHECK(c.over_plain >= 0.98);
    }
  }
}

TEST_CASE("automatic depth beats every fixed one where the drafter changes or knows what it knows" *
          doctest::test_suite("long")) {
  for (const auto& [name, machine] : kMachines) {
    CAPTURE(name);
    const Comparison changing = compare(machine, switching(0.9, 0.1, 64), 512, true);
    CHECK(changing.over_best >= 1.0);
    CHECK(changing.over_plain >= 1.0);
    const Comparison knowing = compare(machine, honest(), 512, true);
    CHECK(knowing.over_best >= 1.0);
    CHECK(knowing.over_plain >= 1.0);
  }
}

TEST_CASE("automatic depth with nothing known beforehand" * doctest::test_suite("long")) {
  for (const auto& [name, machine] : kMachines) {
    CAPTURE(name);
    for (double share : {0.0, 0.2, 0.75}) {
      CAPTURE(share);
      const Comparison c = compare(machine, even(share), 512, false);
      CHECK(c.over_plain >= 0.97);
      CHECK(c.over_best >= 0.94);
    }
  }
}

TEST_CASE("a drafter that is always wrong costs next to nothing after the first rounds") {
  for (const auto& [name, machine] : kMachines) {
    CAPTURE(name);
    DepthEstimates estimates(machine.bytes());
    simulate(machine, even(0), 32, kAuto, estimates, 1);
    const Result r = simulate(machine, even(0), 2000, kAuto, estimates, 2);
    CHECK(r.rate() >= 0.99);
    CHECK(r.drafted > 0);  // it is still looked at now and then
  }
}

TEST_CASE("a drafter that becomes good is found out") {
  const Drafter late = [](int64_t position, std::mt19937_64&) {
    return Draft{position >= 1000, 0.9};
  };
  for (const auto& [name, machine] : kMachines) {
    CAPTURE(name);
    DepthEstimates estimates(machine.bytes());
    const Result before = simulate(machine, late, 1000, kAuto, estimates, 3);
    const Result all = simulate(machine, late, 3000, kAuto, estimates, 3);
    CHECK(before.rate() < 1.02);
    const double after = 2000 / (all.units - before.units);
    double best = 0;
    for (int k = 0; k < 16; ++k)
      best = std::max(best, (k + 1) / (machine.curve[k] + k * machine.draft));
    CHECK(after >= 0.85 * best);
  }
}

TEST_CASE("looked-up drafts are weighed against the drafter's") {
  DepthEstimates estimates;
  DepthControl control(estimates, true);
  std::mt19937_64 random(5);
  int by_lookup = 0;
  const auto rounds = [&](int n, bool lookup_right, bool drafter_right) {
    by_lookup = 0;
    for (int i = 0; i < n; ++i) {
      control.begin(0, 15, 8, 6);
      int steps = 0;
      while (control.more()) {
        control.drafted(0.9);
        ++steps;
      }
      const bool lookup = control.source() == DraftSource::kLookup;
      by_lookup += lookup;
      RoundOutcome o;
      const int depth = control.depth();
      const int accepted = lookup ? (lookup_right ? depth : 0) : (drafter_right ? depth : 0);
      o.draft_seconds = steps * 0.0006;
      o.verify_seconds = 0.05 * kAvx2[depth];
      o.rows = depth + 1;
      o.lookup_agreed = lookup_right ? std::min(8, accepted + 1) : 0;
      o.lookup_missed = !lookup_right;
      o.drafter_agreed = drafter_right ? std::min(steps, accepted + 1) : 0;
      o.drafter_missed = steps > 0 && !drafter_right;
      control.end(o);
    }
  };
  rounds(60, true, false);
  CHECK(by_lookup > 50);
  rounds(40, false, true);
  rounds(40, false, true);
  CHECK(by_lookup < 5);
}

TEST_CASE("a look-up of which a refresh verifies nothing is still what the round has chosen") {
  DepthEstimates estimates;
  DepthControl control(estimates, false);
  int refreshed = 0;
  for (int i = 0; i < 1000; ++i) {
    // The grammar's tokens are right every eighth time; the one that is looked up later, always.
    const int found = i < 600 ? 0 : 1;
    control.begin(0, 15, found, 32, {}, 4);
    const int forced = control.looks_up() ? 0 : 4;
    for (int k = 0; k < forced; ++k) control.forced();
    if (control.looks_up() && control.source() == DraftSource::kNone) {
      ++refreshed;
      CHECK(control.depth() == 0);
      CHECK(control.tokens() == 1);
    }
    RoundOutcome o;
    o.verify_seconds = 0.01;
    o.rows = control.depth() + 1;
    o.lookup_agreed = found;
    o.drafter_agreed = i % 8 ? 0 : forced;
    o.drafter_missed = forced > 0 && i % 8 != 0;
    control.end(o);
  }
  CHECK(refreshed > 0);
}

TEST_CASE("depth stays within the limit") {
  DepthEstimates estimates;
  DepthControl control(estimates, true);
  for (int limit : {0, 1, 2, 15, 100, 0, 3, -1}) {
    for (int i = 0; i < 20; ++i) {
      control.begin(0, limit, 32, 32);
      int steps = 0;
      for (; control.more(); ++steps) control.drafted(0.9999);
      CHECK(steps <= std::clamp(limit, 0, 15));
      CHECK(control.depth() <= std::clamp(limit, 0, 15));
      RoundOutcome o;
      o.draft_seconds = 1e-4;
      o.verify_seconds = 0.01;
      o.rows = control.depth() + 1;
      if (control.source() == DraftSource::kLookup) o.lookup_agreed = control.depth();
      if (control.source() == DraftSource::kDrafter) o.drafter_agreed = control.depth();
      control.end(o);
    }
  }
}

TEST_CASE("costs are found from passes of a machine whose speed wanders") {
  const Machine machine{kAvx2, 0.012, 0.05, 0.03, 0.02};
  CostModel costs;
  Clock clock{machine};
  std::mt19937_64 random(11);
  for (int i = 0; i < 400; ++i) {
    const int rows = 1 + static_cast<int>(random() % 16);
    costs.observe_verify(rows, 0, clock.measured(machine.curve[rows - 1]));
    costs.observe_draft(3, 0, clock.measured(3 * machine.draft));
  }
  for (int rows = 2; rows <= 16; ++rows) {
    CAPTURE(rows);
    const double ratio = costs.verify(rows, 0) / costs.verify(1, 0);
    const double doubt = costs.doubt(rows, 1, 0);
    CHECK(doubt < 0.05);
    CHECK(std::fabs(std::log(ratio / machine.curve[rows - 1])) < 3.5 * doubt);
  }
  CHECK(costs.draft(3) / costs.verify(1, 0) == doctest::Approx(0.036).epsilon(0.1));
}

TEST_CASE("costs behind a long context are told apart from those of the weights") {
  CostModel costs;
  const auto seconds = [](int rows, double context) {
    return 0.05 * (kAvx2[rows - 1] + context * (1.5 + 0.5 * (rows - 1)));
  };
  std::mt19937_64 random(12);
  for (int i = 0; i < 1000; ++i) {
    const int rows = 1 + static_cast<int>(random() % 8);
    const double context = 0.3 * (i / 50 % 4);
    costs.observe_verify(rows, context, seconds(rows, context));
  }
  for (int rows : {1, 2, 4, 8})
    for (double context : {0.0, 0.3, 0.9}) {
      CAPTURE(rows);
      CAPTURE(context);
      CHECK(costs.verify(rows, context) == doctest::Approx(seconds(rows, context)).epsilon(0.06));
    }
}

TEST_CASE("no time, however odd, spoils the estimate of costs") {
  CostModel costs;
  const auto passes = [&](int n) {
    for (int i = 0; i < n; ++i) costs.observe_verify(1 + i % 4, 0, 0.05 * kAvx2[i % 4]);
  };
  passes(100);
  const double inf = std::numeric_limits<double>::infinity();
  for (double odd : {0.0, -1.0, inf, -inf, std::nan("")}) {
    const double before = costs.verify(2, 0);
    costs.observe_verify(2, 0, odd);
    costs.observe_draft(2, 0, odd);
    costs.pass_time(odd);
    CHECK(costs.verify(2, 0) == before);
  }
  for (double jump : {5e-324, 1e-12, 1e-3, 3600.0, 1e12, 1e308}) {
    CAPTURE(jump);
    costs.observe_verify(2, 0, jump);
    CHECK(std::isfinite(1 / costs.verify(1, 0)));  // a rate of tokens
    costs.pass_time(jump);
    passes(12);
    for (int rows = 1; rows <= 4; ++rows)
      CHECK(costs.verify(rows, 0) == doctest::Approx(0.05 * kAvx2[rows - 1]).epsilon(0.1));
  }
}

TEST_CASE("a pass with more rows than were ever measured is not expected to take less time") {
  CostModel costs;
  for (int round = 0; round < 50; ++round) {  // twice the rows in half the time, as noise has it
    costs.observe_verify(CostModel::kMaxRows / 2, 0, 0.1);
    costs.observe_verify(CostModel::kMaxRows, 0, 0.05);
  }
  REQUIRE(costs.verify(CostModel::kMaxRows, 0) < costs.verify(CostModel::kMaxRows / 2, 0));
  for (const int rows : {17, 40, 200}) CHECK(costs.verify(rows, 0) >= costs.verify(16, 0));
}

TEST_CASE("chances follow what confidence and position turn out to mean") {
  AcceptanceModel model = drafter_acceptance();
  RecentAcceptance recent;
  std::mt19937_64 random(13);
  std::uniform_real_distribution<> uniform;
  // Sure tokens are right, unsure ones wrong half the time; later positions are always right.
  for (int i = 0; i < 4000; ++i) {
    const bool sure = uniform(random) < 0.5;
    const bool right = sure || uniform(random) < 0.5;
    model.observe(recent, 0, drafter_confidence(sure ? 0.99 : 0.4), right);
    if (right) model.observe(recent, 1, drafter_confidence(0.4), true);
  }
  CHECK(model.predict(recent, 0, drafter_confidence(0.99)) > 0.93);
  CHECK(std::fabs(model.predict(recent, 0, drafter_confidence(0.4)) - 0.5) < 0.15);
  CHECK(model.predict(recent, 1, drafter_confidence(0.4)) > 0.9);
}

// What `others` sequences that decode without drafts leave of drafting, on a machine
// whose pass over m rows takes seconds(m): the mean depth after the first rounds, and the tokens
// per second of all over those without any drafts.
template <class Seconds>
static std::pair<double, double> with_others(int others, const Seconds& seconds) {
  DepthEstimates estimates;
  DepthControl control(estimates, true);
  const Others shared{others, static_cast<double>(others), 0};
  uint32_t x = 1;
  double time = 0, tokens = 0, depths = 0;
  constexpr int kRounds = 600, kLearning = 100;
  for (int round = 0; round < kRounds; ++round) {
    control.begin(0, 7, 0, 0, shared);
    int steps = 0, agreed = 0;
    bool right = true;
    for (; control.more(); ++steps) {
      x = x * 1664525u + 1013904223u;
      right = right && (x >> 8) < 0.75 * 0x1p24;
      agreed += right;
      control.drafted(0.75);
    }
    RoundOutcome o;
    o.rows = others + control.depth() + 1;
    o.draft_seconds = 0.02 * seconds(1) * steps;
    o.verify_seconds = seconds(o.rows);
    o.drafter_missed = agreed < steps && agreed <= control.depth();
    const int accepted = std::min(agreed, control.depth());
    o.drafter_agreed = std::min(agreed, accepted + (agreed > accepted ? 1 : 0));
    if (round >= kLearning) {
      time += o.draft_seconds + o.verify_seconds;
      tokens += others + 1 + accepted;
      depths += control.depth();
    }
    control.end(o);
  }
  const double plain = (others + 1) / seconds(others + 1);
  return {depths / (kRounds - kLearning), tokens / time / plain};
}

TEST_CASE("in a pass with others, drafts are made as long as they are worth it to all") {
  // Weights are read in the time of 4 rows' arithmetic; and in that of 40.
  const auto dear = [](int rows) { return 0.01 * std::max(4, rows); };
  const auto cheap = [](int rows) { return 0.001 * std::max(40, rows); };
  CHECK(with_others(0, dear).second > 1.8);
  CHECK(with_others(1, dear).second > 1.15);
  for (const int others : {3, 7}) {
    CAPTURE(others);
    const auto [depth, gain] = with_others(others, dear);
    CHECK(depth < 0.1);
    CHECK(gain > 0.98);
    const auto [far, more] = with_others(others, cheap);
    CHECK(far > 2);
    CHECK(more > 1.1);
  }
  CHECK(with_others(31, dear).second > 0.98);  // beyond what passes are learned from
  CHECK(with_others(31, cheap).second > 0.98);
}
