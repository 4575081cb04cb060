// What passes cost on this machine, now: an online estimate from the passes that run anyway.
//
// The logarithm of the time of a verify pass over m rows behind a context that holds u times the
// bytes of a token's weights in K/V is
//   speed + log(e^curve(m) + u (e^attention + (m - 1) e^attention_row)),     curve(1) = 0,
// and a round's k draft steps take e^speed (e^draft_first + (k - 1) e^draft_next). All of it is the
// state of one extended Kalman filter (Kalman 1960): the speed wanders with the load of the
// machine, the rest hardly. So two passes next to each other say what rows cost, and passes far
// apart do not blame the curve for a slow moment. Neighbours on the curve are correlated: what one
// depth costs says something about the next. An innovation beyond what the estimate can explain
// counts less the larger it is (Huber 1964), so an outlier moves little and a lasting change
// everything.
#pragma once

#include <array>
#include <cstdint>

namespace gemtp {

/// Bytes that are read, over those of a pass of the target over one row.
struct BytesRead {
  double draft = 0.05;              // by a draft step
  std::array<double, 16> verify{};  // [m - 1]: by a pass over m rows; 0: as by one
};

class CostModel {
 public:
  static constexpr int kMaxRows = 16;

  /// What is read is a first guess at what it costs, like all that a new model says.
  explicit CostModel(const BytesRead& bytes = {});

  /// A pass over `rows` rows, choices included, behind K/V of `context` times the bytes of a
  /// token's weights, took `seconds`. Times that are not positive and finite are ignored.
  void observe_verify(int rows, double context, double seconds);
  /// The `steps` draft steps of a round took `seconds`.
  void observe_draft(int steps, double context, double seconds);
  /// `seconds` passed in which nothing was observed: the machine may have changed its speed.
  void pass_time(double seconds);

  /// Expected seconds. Beyond kMaxRows a further row costs what the latter half of the curve says:
  /// there it is arithmetic that counts.
  double verify(int rows, double context) const;
  double draft(int steps) const;
  /// Standard deviation of log(verify(rows) / verify(than)): how well the two are known against
  /// each other. More than kMaxRows count as kMaxRows.
  double doubt(int rows, int than, double context) const;

 private:
  enum : int {
    kSpeed,
    kCurve,
    kAttention = kCurve + kMaxRows - 1,
    kAttentionRow,
    kDraftFirst,
    kDraftNext,
    kStates
  };
  using Vector = std::array<double, kStates>;

  // A prediction of log(seconds) and what it depends on: its slope along the few states that are
  // not 0.
  struct Prediction {
    double value;
    std::array<int, 4> states;
    std::array<double, 4> slopes;
  };

  Prediction predict_verify(int rows, double context) const;
  Prediction predict_draft(int steps) const;
  double covariance(const Prediction& a, const Prediction& b) const;
  void update(const Prediction& predicted, double seconds, double context);
  void drift(double seconds, double context);

  Vector x_{};
  std::array<Vector, kStates> covariance_{};
  double noise_;         // variance of the logarithm of a time around its expectation
  double context_ = -1;  // of the latest observation; -1: none
};

/// Most drafts of one round.
constexpr int kMaxDraft = CostModel::kMaxRows - 1;

}  // namespace gemtp
