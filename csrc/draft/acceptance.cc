#include "draft/acceptance.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace gemtp {
namespace {

constexpr double kFastRate = 1.0 / 5, kSlowRate = 1.0 / 40;
constexpr int kFewOutcomes = 3;     // that the long run stands for at the beginning of a sequence
constexpr double kPriorCount = 1;   // outcomes that a first guess stands for
constexpr double kMostCount = 200;  // so that a cell goes on learning
constexpr double kLearningRate = 0.005;
constexpr double kLeastWeight = 0.0, kMostWeight = 1.5;
constexpr double kSure = 1e-3;  // no opinion is surer than 1 - kSure

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
  // As many outcomes as these weigh, and one that went as in the longer run.
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

// A bin for each unit of the logit, from 1/20 to one in a hundred thousand short of certain. A
// drafter is taken to be somewhat less right than it thinks.
double drafter_confidence(double probability) {
  const double p = std::clamp(probability, 1e-9, 1 - 1e-9);
  return std::clamp(std::log(p / (1 - p)) + 3, 0.0, AcceptanceModel::kBins - 1.0);
}

AcceptanceModel drafter_acceptance() {
  std::array<double, AcceptanceModel::kBins> prior;
  for (int b = 0; b < AcceptanceModel::kBins; ++b) prior[b] = logistic(0.5 * (b - 3) + 0.3);
  return {prior, 0.7};
}

// Bins of growing width: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...
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
