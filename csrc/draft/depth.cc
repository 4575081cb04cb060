#include "draft/depth.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace gemtp {
namespace {

// Optimism towards uncertain costs, in standard deviations of their logarithm. Like all constants
// of this file it was chosen by hand; tests/cpp/draft/test_depth.cc checks the control against
// simulated machines and drafters.
constexpr double kBenefitOfDoubt = 0.25;

// Share of the time that single test drafts may cost while drafting does not pay: when the latest
// one was accepted, and in the long run. (docs/mtp.md gives the latter, 0.4%.)
constexpr double kPeekShare = 0.012, kIdlePeekShare = 0.004;
constexpr int kLongestPeekInterval = 64;
// From time to time a round verifies only half as many drafts as seem best, because otherwise a
// wrong estimate of the usual depth's cost relative to shallower ones would persist. This happens
// every kRefreshInterval rounds, and more often if the ratio of the two costs is uncertain.
constexpr double kRefreshInterval = 64, kShortestRefreshInterval = 4;
constexpr double kWellKnown = 0.05;     // log of that ratio: deviation that counts as certain
constexpr double kPeekRate = 1.0 / 16;  // weight of a draft in the mean value of test drafts

}  // namespace

const char* draft_source_name(DraftSource source) {
  switch (source) {
    case DraftSource::kNone:
      return "target";
    case DraftSource::kDrafter:
      return "drafter";
    case DraftSource::kLookup:
      return "lookup";
    case DraftSource::kGrammar:
      return "grammar";
  }
  return "";
}

void DepthControl::begin(double context, int limit, int lookup_tokens, int lookup_match,
                         const Others& others, int forced_tokens) {
  const CostModel& costs = estimates_.costs;
  context_ = context + others.context;
  others_ = others;
  limit_ = std::clamp(limit, 0, std::min(CostModel::kMaxRows - 1, 2 * estimates_.deepest + 1));
  lookup_match_ = lookup_match;
  depth_ = 0;
  more_ = false;
  refresh_ = refresh_due();
  chances_.clear();
  confidences_.clear();
  by_drafter_.clear();
  steps_ = 0;
  verify_.clear();
  draft_.clear();
  expected_.clear();
  lookup_chances_.clear();
  for (int k = 0; k <= limit_; ++k) {
    const int rows = others.rows + k + 1;
    const double benefit = kBenefitOfDoubt * costs.doubt(rows, usual_, context_);
    const double cost = costs.verify(rows, context_) * std::exp(-benefit);
    verify_.push_back(k ? std::max(cost, verify_.back()) : cost);  // never falling
    draft_.push_back(costs.draft(k));
  }
  const int forced = std::min(forced_tokens, limit_);
  for (int j = 0; j < forced; ++j)
    expected_.push_back(estimates_.grammar.predict(recent_grammar_, j, AcceptanceModel::kUnknown));
  for (int j = forced; has_drafter_ && j < limit_; ++j)
    expected_.push_back(estimates_.drafter.predict(recent_drafter_, j, AcceptanceModel::kUnknown));
  for (int j = 0; j < std::min(lookup_tokens, limit_); ++j)
    lookup_chances_.push_back(
        estimates_.lookup.predict(recent_lookup_, j, lookup_confidence(lookup_match + j)));

  const double plain = (others.tokens + 1) / verify_[0];
  const Plan drafter = best(expected_, forced), lookup = best(lookup_chances_, limit_);
  rate_ = std::max({plain, drafter.rate, lookup.rate});
  if (lookup.depth > 0 && lookup.rate >= std::max(plain, drafter.rate)) {
    source_ = DraftSource::kLookup;
    depth_ = lookup.depth;
    return;
  }
  source_ = DraftSource::kDrafter;
  if (!has_drafter_ || limit_ == 0) return;
  more_ = drafter.rate > plain || peek_value_ > draft_[1] || since_peek_ + 1 >= peek_interval_;
}

// Returns the depth with the most tokens per second, if the first `free` drafts need no draft
// steps.
DepthControl::Plan DepthControl::best(const std::vector<double>& chances, int free) const {
  Plan plan;
  double tokens = others_.tokens + 1, all = 1;
  for (size_t k = 1; k <= chances.size(); ++k) {
    all *= chances[k - 1];
    tokens += all;
    const auto depth = static_cast<int>(k);
    const double rate = tokens / (verify_[k] + (depth > free ? draft_[k] : 0));
    if (rate > plan.rate) plan = {rate, depth};
  }
  return plan;
}

double DepthControl::tokens() const {
  const std::vector<double>& chances = source_ == DraftSource::kLookup ? lookup_chances_ : chances_;
  double tokens = 1, all = 1;
  for (int k = 0; k < depth(); ++k) {
    all *= chances[static_cast<size_t>(k)];
    tokens += all;
  }
  return tokens;
}

void DepthControl::drafted(double probability) {
  const int position = static_cast<int>(chances_.size());
  const double confidence = drafter_confidence(probability);
  add(estimates_.drafter.predict(recent_drafter_, position, confidence), confidence, true);
}

void DepthControl::forced() {
  const int position = static_cast<int>(chances_.size());
  constexpr double kUnknown = AcceptanceModel::kUnknown;
  add(estimates_.grammar.predict(recent_grammar_, position, kUnknown), kUnknown, false);
}

void DepthControl::add(double chance, double confidence, bool by_drafter) {
  GEMTP_ASSERT(!looks_up());
  chances_.push_back(chance);
  confidences_.push_back(confidence);
  by_drafter_.push_back(by_drafter);
  if (by_drafter) steps_ = static_cast<int>(chances_.size());
  decide();
}

// Decides how many of the drafts to verify, and whether a further draft is worth its time.
void DepthControl::decide() {
  const auto n = static_cast<int>(chances_.size());
  // Values are tokens beyond those of a plain step, minus the worth of the time beyond it.
  double all = 1, tokens = 0, verified = 0, further = 0;
  depth_ = 0;
  for (int k = 1; k <= limit_ && (k <= n || has_drafter_); ++k) {
    all *= k <= n ? chances_[k - 1] : expected_[k - 1];
    tokens += all;
    const double value = tokens - rate_ * (verify_[k] - verify_[0]);
    if (k <= n) {
      if (value > verified) {
        verified = value;
        depth_ = k;
      }
    } else {
      further = std::max(further, value - rate_ * (draft_[k] - draft_[steps_]));
    }
  }
  more_ = further > verified;
  if (n > 1 || !by_drafter_.back()) return;
  const double worth = std::max(verified, further) / rate_;
  peek_value_ += kPeekRate * (worth - peek_value_);
}

bool DepthControl::refresh_due() const {
  if (usual_ == 1) return false;
  const double doubt = estimates_.costs.doubt((usual_ - 1) / 2 + 1, usual_, context_) / kWellKnown;
  const double interval = kRefreshInterval / std::max(1.0, doubt * doubt);
  return since_refresh_ >= std::max(interval, kShortestRefreshInterval);
}

void DepthControl::end(const RoundOutcome& outcome) {
  CostModel& costs = estimates_.costs;
  const int verified = depth();
  if (outcome.rows <= CostModel::kMaxRows)
    costs.observe_verify(outcome.rows, context_, outcome.verify_seconds);
  usual_ = others_.rows + depth_ + 1;
  since_refresh_ = refresh_ ? 0 : since_refresh_ + (depth_ > 0);
  const int agreed =
      source_ == DraftSource::kLookup ? outcome.lookup_agreed : outcome.drafter_agreed;
  if (agreed >= verified) estimates_.deepest = std::max(estimates_.deepest, verified);
  const int steps = steps_;
  if (steps > 0) costs.observe_draft(steps, context_, outcome.draft_seconds);

  const int drafter_seen = outcome.drafter_agreed + outcome.drafter_missed;
  GEMTP_ASSERT(drafter_seen <= static_cast<int>(chances_.size()));
  for (int j = 0; j < drafter_seen; ++j) {
    const bool accepted = j < outcome.drafter_agreed;
    if (by_drafter_[static_cast<size_t>(j)])
      estimates_.drafter.observe(recent_drafter_, j, confidences_[j], accepted);
    else
      estimates_.grammar.observe(recent_grammar_, j, confidences_[j], accepted);
  }
  const int lookup_seen = outcome.lookup_agreed + outcome.lookup_missed;
  for (int j = 0; j < lookup_seen; ++j)
    estimates_.lookup.observe(recent_lookup_, j, lookup_confidence(lookup_match_ + j),
                              j < outcome.lookup_agreed);

  if (steps == 0) {
    ++since_peek_;
    return;
  }
  since_peek_ = 0;
  // A test draft delays all sequences of the pass, so they share the budget for them.
  const double share = (1 + others_.rows) * draft_[1] / verify_[0];
  const auto interval = [share](double budget) {
    return static_cast<int>(
        std::clamp(std::ceil(share / budget), 1.0, static_cast<double>(kLongestPeekInterval)));
  };
  peek_interval_ = outcome.drafter_agreed > 0
                       ? interval(kPeekShare)
                       : std::min(2 * peek_interval_, interval(kIdlePeekShare));
}

}  // namespace gemtp
