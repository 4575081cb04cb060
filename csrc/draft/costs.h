// The current cost of passes on this machine: an online estimate from the passes that run anyway.
//
// The logarithm of the time of a verify pass over m rows, with a context whose K/V has u times the
// bytes of the weights read for one token, is
//   speed + log(e^curve(m) + u (e^attention + (m - 1) e^attention_row)),     curve(1) = 0,
// and a round's k draft steps take e^speed (e^draft_first + (k - 1) e^draft_next). These parameters
// are the state of one extended Kalman filter (Kalman 1960). The speed varies with the load of the
// machine, the others hardly vary. Therefore two consecutive passes show what rows cost, and a slow
// moment between distant passes does not distort the curve. Neighbouring points of the curve are
// correlated, because the cost of one depth is informative about the next. The further an
// innovation exceeds its expected deviation, the less it counts (Huber 1964), so an outlier changes
// little and a lasting change is followed.
#pragma once

#include <array>
#include <cstdint>

namespace gemtp {

/// Bytes read, relative to a pass of the target over one row.
struct BytesRead {
  double draft = 0.05;              // read by a draft step
  std::array<double, 16> verify{};  // [m - 1]: by a pass over m rows; 0: as one row
};

class CostModel {
 public:
  static constexpr int kMaxRows = 16;

  /// The initial estimates are guesses derived from the bytes read.
  explicit CostModel(const BytesRead& bytes = {});

  /// Learns that a pass over `rows` rows, including the choices, took `seconds`, with K/V of
  /// `context` times the bytes of the weights read for one token. Times that are not positive and
  /// finite are ignored, and others limited to 1e-12 and 1e12.
  void observe_verify(int rows, double context, double seconds);
  /// Learns that the `steps` draft steps of a round took `seconds`.
  void observe_draft(int steps, double context, double seconds);
  /// Notes that nothing was observed for `seconds`, in which the machine may have changed its
  /// speed.
  void pass_time(double seconds);

  /// Expected seconds. Beyond kMaxRows the latter half of the curve is extrapolated linearly,
  /// because arithmetic dominates there; further rows never save time.
  double verify(int rows, double context) const;
  double draft(int steps) const;
  /// Standard deviation of log(verify(rows) / verify(than)), the uncertainty of the ratio of the
  /// two costs. More than kMaxRows rows count as kMaxRows.
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

  // A prediction of log(seconds), with its slopes along the few states that it depends on.
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
  double noise_;         // variance of log(time) around its expectation
  double context_ = -1;  // context of the latest observation; -1: none
};

/// Upper limit on the drafts of one round.
constexpr int kMaxDraft = CostModel::kMaxRows - 1;

}  // namespace gemtp
