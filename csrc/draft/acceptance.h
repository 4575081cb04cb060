// Estimates how likely the next draft is to be the target's choice, given that all drafts before it
// in the round were.
//
// Three estimates are mixed: the acceptance of drafts with this confidence (a table by confidence
// and position in the round, learned from outcomes), the acceptance of the latest few drafts, and
// that of the latest few dozen (at the beginning of a sequence, that of the long run). Each is a
// probability; the mixture is a logistic regression on their logits whose weights are learned
// online (the mixing of Mahoney's PAQ compressors), so that useful estimates get more weight.
#pragma once

#include <array>

namespace gemtp {

/// The latest outcomes of one sequence, because acceptance varies between texts and within a text.
struct RecentAcceptance {
  double fast = 0;  // share of accepted drafts, over a few outcomes
  double slow = 0;  // over a few dozen outcomes
  int count = 0;    // number of outcomes; if 0, the shares are meaningless
};

class AcceptanceModel {
 public:
  static constexpr int kBins = 16;

  /// Confidence of a source in a draft: a point on the axis of the table, 0 to kBins - 1. kUnknown
  /// stands for a draft without one, e.g. before the draft is made.
  static constexpr double kUnknown = -1;

  /// prior[b]: initial estimate of the acceptance at bin b; unknown: the same for kUnknown.
  AcceptanceModel(const std::array<double, kBins>& prior, double unknown);

  /// Probability that the draft is accepted. position: index in the round, from 0.
  double predict(const RecentAcceptance& recent, int position, double confidence) const;
  /// Learns whether a draft, whose predecessors in the round were all accepted, was accepted.
  /// confidence: as at its prediction, or kUnknown if it has none.
  void observe(RecentAcceptance& recent, int position, double confidence, bool accepted);

  /// Share of accepted drafts in the long run.
  double long_run() const { return long_run_.acceptance; }

 private:
  static constexpr int kPositions = 3;  // first, second, and all further drafts
  static constexpr int kOpinions = 3;

  struct Cell {
    double acceptance;
    double count;  // number of outcomes in the estimate
    void observe(bool accepted, double weight);
  };
  // The position of a confidence between two bins.
  struct Place {
    int low;
    double part;  // fraction of the way to the next bin
    explicit Place(double confidence);
  };
  struct Opinions {
    std::array<double, kOpinions> logits;
    double mixed;  // probability
  };

  Opinions opinions(const RecentAcceptance& recent, int position, double confidence) const;
  void observe_as(const RecentAcceptance& recent, int position, double confidence, bool accepted);

  std::array<std::array<Cell, kBins>, kPositions> table_;
  std::array<Cell, kPositions> unknown_;
  // Weights of the opinions, with a confidence and without one.
  std::array<std::array<double, kOpinions>, 2> weights_;
  Cell long_run_;
};

/// Confidence of the drafter: the logit of its probability of the token it proposes, shifted to the
/// bins.
double drafter_confidence(double probability);
AcceptanceModel drafter_acceptance();

/// Confidence of the look-up, from the number of tokens before the draft that match those before
/// the earlier passage.
double lookup_confidence(int match);
AcceptanceModel lookup_acceptance();

/// Tokens forced by a grammar have no confidence: only their split into tokens is a guess.
AcceptanceModel grammar_acceptance();

}  // namespace gemtp
