#include "draft/costs.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace gemtp {
namespace {

double square(double x) { return x * x; }

// Priors, used before anything is measured, and their standard deviations. All of them were chosen
// by hand; tests/cpp/draft/test_depth.cc checks the control against simulated machines. A further
// row is assumed to cost kRowCost of the first row plus the bytes it reads. The error of this guess
// is modelled as one unknown for the whole curve and a small one for each row.
constexpr double kRowCost = 0.15;
// Share of the bytes that rows with independently chosen experts would read; neighbouring rows of a
// text choose similar experts.
constexpr double kRowBytes = 0.6;
constexpr double kCurveScale = 0.6;      // standard deviation of curve(m), relative to its prior
constexpr double kCurveStep = 0.1;       // standard deviation of each step of the curve
constexpr double kSpeedDoubt = 3.0;      // of log(speed): a factor of twenty either way
constexpr double kAttentionDoubt = 0.7;  // of the log of the cost per byte of K/V
constexpr double kAttentionRowGuess = -1.0;  // log: a further row adds arithmetic, no reading
constexpr double kAttentionRowDoubt = 1.0;   // of that logarithm
constexpr double kDraftOverhead = 0.003;     // of a draft step, in token passes, beside its bytes
constexpr double kDraftDoubt = 1.0;          // of the logs of both draft costs

// Drift of the states, as standard deviations of their logarithms. Chosen by hand, like the
// constants below.
constexpr double kSpeedPerPass = 0.02;       // of the speed, per pass
constexpr double kSpeedPerRootSecond = 0.1;  // of the speed, per square root of a second
constexpr double kSpeedMost = 0.5;           // limit, however long nothing ran
constexpr double kShapePerPass = 0.004;      // of the curve and the attention, per pass
constexpr double kShapePerContext = 0.1;     // of both, per unit of context by which K/V changed
constexpr double kDraftPerRound = 0.02;      // of the draft costs, per round

constexpr double kNoise = 0.06;  // initial noise of a time; learned within the bounds below
constexpr double kLeastNoise = 0.02, kMostNoise = 0.25;
constexpr double kNoiseRate = 0.05;  // weight of a time in the estimate of the noise
constexpr double kSurprise = 0.5;    // doubt of the speed after a surprise, per innovation
constexpr double kHuber = 2.0;       // standard deviations up to which innovations count fully
// Times beyond these, which no clock and no pass gives, would make rates of tokens infinite.
constexpr double kLeastSeconds = 1e-12, kMostSeconds = 1e12;

}  // namespace

CostModel::CostModel(const BytesRead& bytes) : noise_(square(kNoise)) {
  std::array<double, kMaxRows> curve{};
  for (int i = 1; i < kMaxRows; ++i) {
    curve[i] = std::log1p(kRowBytes * std::max(bytes.verify[i] - 1, 0.0) + kRowCost * i);
    x_[kCurve + i - 1] = curve[i];
  }
  for (int i = 1; i < kMaxRows; ++i) {
    for (int j = 1; j < kMaxRows; ++j) {
      covariance_[kCurve + i - 1][kCurve + j - 1] =
          square(kCurveScale) * curve[i] * curve[j] + square(kCurveStep) * std::min(i, j);
    }
  }
  x_[kAttentionRow] = kAttentionRowGuess;
  x_[kDraftFirst] = x_[kDraftNext] = std::log(std::max(bytes.draft, 0.0) + kDraftOverhead);
  covariance_[kSpeed][kSpeed] = square(kSpeedDoubt);
  covariance_[kAttention][kAttention] = square(kAttentionDoubt);
  covariance_[kAttentionRow][kAttentionRow] = square(kAttentionRowDoubt);
  covariance_[kDraftFirst][kDraftFirst] = covariance_[kDraftNext][kDraftNext] = square(kDraftDoubt);
  covariance_[kDraftFirst][kDraftNext] = covariance_[kDraftNext][kDraftFirst] =
      0.8 * square(kDraftDoubt);
}

CostModel::Prediction CostModel::predict_verify(int rows, double context) const {
  GEMTP_ASSERT(rows >= 1 && rows <= kMaxRows);
  const double weights = rows == 1 ? 1.0 : std::exp(x_[kCurve + rows - 2]);
  const double first = context * std::exp(x_[kAttention]);
  const double further = rows == 1 ? 0.0 : context * (rows - 1) * std::exp(x_[kAttentionRow]);
  const double sum = weights + first + further;
  return {x_[kSpeed] + std::log(sum),
          {kSpeed, kCurve + std::max(rows - 2, 0), kAttention, kAttentionRow},
          {1.0, rows == 1 ? 0.0 : weights / sum, first / sum, further / sum}};
}

CostModel::Prediction CostModel::predict_draft(int steps) const {
  GEMTP_ASSERT(steps >= 1);
  const double first = std::exp(x_[kDraftFirst]);
  const double next = (steps - 1) * std::exp(x_[kDraftNext]);
  const double sum = first + next;
  return {x_[kSpeed] + std::log(sum),
          {kSpeed, kDraftFirst, kDraftNext, kDraftNext},
          {1.0, first / sum, next / sum, 0.0}};
}

double CostModel::covariance(const Prediction& a, const Prediction& b) const {
  double sum = 0;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      sum += a.slopes[i] * b.slopes[j] * covariance_[a.states[i]][b.states[j]];
  return sum;
}

void CostModel::observe_verify(int rows, double context, double seconds) {
  update(predict_verify(rows, context), seconds, context);
}

void CostModel::observe_draft(int steps, double context, double seconds) {
  update(predict_draft(steps), seconds, context);
}

void CostModel::pass_time(double seconds) {
  if (!(seconds > 0)) return;
  double& speed = covariance_[kSpeed][kSpeed];
  const double most = std::max(speed, square(kSpeedMost));
  speed = std::min(speed + square(kSpeedPerRootSecond) * seconds, most);
}

void CostModel::drift(double seconds, double context) {
  pass_time(seconds);
  covariance_[kSpeed][kSpeed] += square(kSpeedPerPass);
  const double moved = context_ < 0 ? 0.0 : context - context_;
  const double shape = square(kShapePerPass) + square(kShapePerContext * moved);
  for (int i = kCurve; i < kDraftFirst; ++i) covariance_[i][i] += shape;
  for (int i = kDraftFirst; i < kStates; ++i) covariance_[i][i] += square(kDraftPerRound) + shape;
  context_ = context;
}

void CostModel::update(const Prediction& predicted, double seconds, double context) {
  if (!(seconds > 0) || !std::isfinite(seconds)) return;
  seconds = std::clamp(seconds, kLeastSeconds, kMostSeconds);
  drift(seconds, context);
  Vector gain;
  for (int i = 0; i < kStates; ++i) {
    gain[i] = 0;
    for (int k = 0; k < 4; ++k)
      gain[i] += covariance_[i][predicted.states[k]] * predicted.slopes[k];
  }
  const double expected = covariance(predicted, predicted);  // variance of the prediction
  const double innovation = std::log(seconds) - predicted.value;
  double variance = expected + noise_;
  const double believed = kHuber * std::sqrt(variance);
  // Raises the variance so that the innovation is exactly kHuber standard deviations.
  if (std::fabs(innovation) > believed) variance *= square(innovation / believed);
  noise_ += kNoiseRate * (std::min(square(innovation), square(believed)) - expected - noise_);
  noise_ = std::clamp(noise_, square(kLeastNoise), square(kMostNoise));

  for (int i = 0; i < kStates; ++i) x_[i] += gain[i] / variance * innovation;
  for (int i = 0; i < kStates; ++i)
    for (int j = 0; j < kStates; ++j) covariance_[i][j] -= gain[i] * gain[j] / variance;
  // After a surprise the next pass shows whether only one pass was slow or the machine has changed.
  // Its time is attributed to the speed, not to the curve.
  if (std::fabs(innovation) > believed)
    covariance_[kSpeed][kSpeed] =
        std::max(covariance_[kSpeed][kSpeed], square(kSurprise * innovation));
}

double CostModel::verify(int rows, double context) const {
  if (rows <= kMaxRows) return std::exp(predict_verify(rows, context).value);
  const double most = verify(kMaxRows, context), half = verify(kMaxRows / 2, context);
  const double slope = std::max(most - half, 0.0) / (kMaxRows - kMaxRows / 2);
  return most + slope * (rows - kMaxRows);
}

double CostModel::draft(int steps) const {
  return steps > 0 ? std::exp(predict_draft(steps).value) : 0.0;
}

double CostModel::doubt(int rows, int than, double context) const {
  const Prediction a = predict_verify(std::min(rows, kMaxRows), context);
  const Prediction b = predict_verify(std::min(than, kMaxRows), context);
  const double variance = covariance(a, a) - 2 * covariance(a, b) + covariance(b, b);
  return std::sqrt(std::max(variance, 0.0));
}

}  // namespace gemtp
