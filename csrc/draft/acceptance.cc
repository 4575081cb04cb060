#include "draft/acceptance.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace gemtp {
namespace {

// All constants of this model were chosen by hand; tests/cpp/draft/test_depth.cc checks the control
// against simulated drafters.
constexpr double kFastRate = 1.0 / 5, kSlowRate = 1.0 / 40;  // weight of an outcome in averages
constexpr int kFewOutcomes = 3;          // weight of the long run when a sequence begins
constexpr double kPriorCount = 1;        // weight of a prior, in outcomes
constexpr double kMostCount = 200;       // limit of a cell's count, so that it keeps learning
constexpr double kLearningRate = 0.005;  // of the weights of the opinions
constexpr double kLeastWeight = 0.0, kMostWeight = 1.5;  // bounds of these weights
constexpr double kSure = 1e-3;  // probabilities are clamped to [kSure, 1 - kSure]

double logit(double p) {
  p = std::clamp(p, kSure, 1 - kSure);
  return std::log(p / (1 - p));
}

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

AcceptanceModel::AcceptanceModel(const std::array<double, kBins>& prior, double unknown)
    : long_run_{unknown, kPriorCount} {
  for (auto& row : table_)
    for (int b = 0; b < kBins; ++b) row[b] = {prior[b], kPriorCount};
  unknown_.fill({unknown, kPriorCount});
  weights_[0] = {0.6, 0.1, 0.3};
  weights_[1] = {0.4, 0.15, 0.45};
}

AcceptanceModel::Place::Place(double confidence) {
  const double at = std::min(confidence, kBins - 1.0);
  low = std::min(static_cast<int>(at), kBins - 2);
  part = at - low;
}

void AcceptanceModel::Cell::observe(bool accepted, double weight) {
  count = std::min(count + weight, kMostCount);
  acceptance += weight / count * (accepted - acceptance);
}

AcceptanceModel::Opinions AcceptanceModel::opinions(const RecentAcceptance& recent, int position,
                                                    double confidence) const {
  GEMTP_ASSERT(position >= 0);
  const size_t row = std::min(position, kPositions - 1);
  const bool known = confidence >= 0;
  double by_table = unknown_[row].acceptance;
  if (known) {
    const Place p(confidence);
    by_table =
        (1 - p.part) * table_[row][p.low].acceptance + p.part * table_[row][p.low + 1].acceptance;
  }
  Opinions o;
  // The fast average weighs as much as 2 / kFastRate - 1 outcomes; one more is added that went like
  // the longer run.
  const double slow = recent.count ? recent.slow : long_run();
  const double fast =
      recent.count ? (1 - kFastRate / 2) * recent.fast + kFastRate / 2 * slow : slow;
  o.logits = {logit(by_table), logit(fast), logit(slow)};
  const auto& weights = weights_[known ? 0 : 1];
  double sum = 0;
  for (int i = 0; i < kOpinions; ++i) sum += weights[i] * o.logits[i];
  o.mixed = std::clamp(logistic(sum), kSure, 1 - kSure);
  return o;
}

double AcceptanceModel::predict(const RecentAcceptance& recent, int position,
                                double confidence) const {
  return opinions(recent, position, confidence).mixed;
}

void AcceptanceModel::observe_as(const RecentAcceptance& recent, int position, double confidence,
                                 bool accepted) {
  const Opinions o = opinions(recent, position, confidence);
  const bool known = confidence >= 0;
  for (int i = 0; i < kOpinions; ++i) {
    double& weight = weights_[known ? 0 : 1][i];
    weight += kLearningRate * (accepted - o.mixed) * o.logits[i];
    weight = std::clamp(weight, kLeastWeight, kMostWeight);
  }
  const size_t row = std::min(position, kPositions - 1);
  if (!known) return unknown_[row].observe(accepted, 1);
  const Place p(confidence);
  table_[row][p.low].observe(accepted, 1 - p.part);
  table_[row][p.low + 1].observe(accepted, p.part);
}

void AcceptanceModel::observe(RecentAcceptance& recent, int position, double confidence,
                              bool accepted) {
  if (confidence >= 0) observe_as(recent, position, confidence, accepted);
  observe_as(recent, position, kUnknown, accepted);
  if (recent.count == 0) recent.fast = recent.slow = long_run();
  const double few = 1.0 / (++recent.count + kFewOutcomes);
  recent.fast += std::max(few, kFastRate) * (accepted - recent.fast);
  recent.slow += std::max(few, kSlowRate) * (accepted - recent.slow);
  long_run_.observe(accepted, 1);
}

// One bin per unit of the logit, from a probability of about 1/20 to one of about 1 - 1/100,000.
// (The prior below assumes that a drafter is right somewhat less often than it claims.)
double drafter_confidence(double probability) {
  const double p = std::clamp(probability, 1e-9, 1 - 1e-9);
  return std::clamp(std::log(p / (1 - p)) + 3, 0.0, AcceptanceModel::kBins - 1.0);
}

AcceptanceModel drafter_acceptance() {
  std::array<double, AcceptanceModel::kBins> prior;
  for (int b = 0; b < AcceptanceModel::kBins; ++b) prior[b] = logistic(0.5 * (b - 3) + 0.3);
  return {prior, 0.7};
}

// The bins are at matches of 2^(bin / 2) tokens: 1, 1.4, 2, 2.8, 4, 5.7, 8, ...
double lookup_confidence(int match) {
  return std::clamp(2 * std::log2(std::max(match, 1)), 0.0, AcceptanceModel::kBins - 1.0);
}

AcceptanceModel lookup_acceptance() {
  std::array<double, AcceptanceModel::kBins> prior;
  for (int b = 0; b < AcceptanceModel::kBins; ++b) prior[b] = logistic(0.45 * b - 1.2);
  return {prior, 0.4};
}

AcceptanceModel grammar_acceptance() {
  std::array<double, AcceptanceModel::kBins> prior;
  prior.fill(0.9);
  return {prior, 0.9};
}

}  // namespace gemtp
