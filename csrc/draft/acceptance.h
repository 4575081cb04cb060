// How likely the next draft is to be the target's choice, given that all before it in the round
// were.
//
// Three opinions are mixed: what drafts of this confidence came to (a table by confidence and
// position in the round, learned from outcomes), how the latest few drafts fared, and how drafts
// fare in the long run. Each is a probability; the mixture is a logistic regression on their
// logits whose weights follow the outcomes (the mixing of Mahoney's PAQ compressors), so that
// opinions which help count more.
#pragma once

#include <array>

namespace gemtp {

/// The latest outcomes of one sequence: texts change, within one and from one to the next.
struct RecentAcceptance {
  double fast = 0;  // share of accepted drafts, over a few outcomes
  double slow = 0;  // over some dozens
  int count = 0;    // outcomes; without any, the shares say nothing
};

class AcceptanceModel {
 public:
  static constexpr int kBins = 16;

  /// What a source of drafts says of a draft: a point on the axis of the table, 0 to kBins - 1.
  /// kUnknown: nothing, as before the draft is made.
  static constexpr double kUnknown = -1;

  /// prior[b]: acceptance at bin b before anything was seen; unknown: at kUnknown.
  AcceptanceModel(const std::array<double, kBins>& prior, double unknown);

  /// position: in the round, from 0.
  double predict(const RecentAcceptance& recent, int position, double confidence) const;
  /// A draft whose predecessors in the round were all accepted was, or was not. confidence: as at
  /// its prediction, or kUnknown where it was drafted without one.
  void observe(RecentAcceptance& recent, int position, double confidence, bool accepted);

  /// Share of accepted drafts in the long run.
  double long_run() const { return long_run_.acceptance; }

 private:
  static constexpr int kPositions = 3;  // the first, the second, and all further ones
  static constexpr int kOpinions = 3;

  struct Cell {
    double acceptance;
    double count;  // outcomes it stands for
    void observe(bool accepted, double weight);
  };
  // Where a confidence lies between two bins.
  struct Place {
    int low;
    double part;  // of the way to the next
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
  // Of the opinions, when there is a confidence and when there is none.
  std::array<std::array<double, kOpinions>, 2> weights_;
  Cell long_run_;
};

/// The drafter's axis: the logit of its probability of the token it proposes.
double drafter_confidence(double probability);
AcceptanceModel drafter_acceptance();

/// The look-up's axis: how many tokens before the draft agree with those before its model.
double lookup_confidence(int match);
AcceptanceModel lookup_acceptance();

/// What a grammar forces, without a confidence: only how it is split into tokens is a guess.
AcceptanceModel grammar_acceptance();

}  // namespace gemtp
