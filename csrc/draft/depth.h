// How many tokens to draft, and by whom: each round takes what promises the most tokens per second.
//
// With a_j the chance that draft j is accepted if those before it were, a round that verifies K
// drafts yields 1 + sum_{k<=K} prod_{j<=k} a_j tokens and takes T_verify(K + 1) + T_draft(K); K = 0
// is plain decoding. Before a round the chances are those of drafts nobody has seen yet, and the
// best (source, K) sets the rate: what a second is worth in tokens. Within it the drafter tells its
// probability of each token it proposes, the chances are predicted anew, and drafting goes on as
// long as some further depth is worth its time at that rate; of the drafts made, as many are
// verified as are worth it. When drafting does not pay, a single draft is made now and then and
// compared with the token that comes, at the cost of a draft step: more rarely as long as it would
// not have paid, at once again as soon as it does. Looking up costs nothing to propose, so its
// guesses are compared in every round. What a grammar forces costs nothing either and goes in front
// of the drafter's tokens, between them and behind them: only their K needs draft steps.
//
// Times come from CostModel, chances from AcceptanceModel. A depth whose cost is in doubt is given
// some of the benefit of it, so that a depth that might be better is tried before long. Nothing
// here can change the text: it decides what is guessed, never what is chosen.
#pragma once

#include <cstdint>
#include <vector>

#include "draft/acceptance.h"
#include "draft/costs.h"

namespace gemtp {

/// Who proposed a token.
enum class DraftSource { kNone, kDrafter, kLookup, kGrammar };
const char* draft_source_name(DraftSource source);

/// What an engine has learned about its files and its machine; sequences share it.
struct DepthEstimates {
  explicit DepthEstimates(const BytesRead& bytes = {}) : costs(bytes) {}

  CostModel costs;
  AcceptanceModel drafter = drafter_acceptance();
  AcceptanceModel lookup = lookup_acceptance();
  AcceptanceModel grammar = grammar_acceptance();
  int deepest =
      1;  // most drafts accepted in a round so far: at most twice as many and one are tried
};

/// Other sequences' rows in the same pass.
struct Others {
  int rows = 0;        // to be verified
  double tokens = 0;   // expected of them
  double context = 0;  // as in CostModel, all together
};

/// How a round went.
struct RoundOutcome {
  double draft_seconds = 0;   // all draft steps
  double verify_seconds = 0;  // the target's pass and the choices of its rows; 0: not known
  int rows = 0;               // of that pass, those of others included
  // Of what each source proposed, verified or not, the leading tokens that the target chose too,
  // and whether the next one was seen not to be: rejected, or unlike the token chosen in its place.
  // The grammar's tokens are among the drafter's.
  int drafter_agreed = 0;
  bool drafter_missed = false;
  int lookup_agreed = 0;
  bool lookup_missed = false;
};

/// Decides for one sequence. A round: begin(); while (more()) draft a token and call drafted(), or
/// forced() for one that the grammar gives; verify depth() tokens of source(); end().
class DepthControl {
 public:
  DepthControl(DepthEstimates& estimates, bool has_drafter)
      : estimates_(estimates), has_drafter_(has_drafter) {}

  /// context: as in CostModel. limit: most drafts that can become tokens. The look-up offers
  /// `lookup_tokens`, behind `lookup_match` tokens that agree with those before their model. With
  /// others it is the tokens of all that count, and the time of the pass that all share.
  /// forced_tokens: of the grammar, as the first drafts; they are given to forced() next, unless
  /// the look-up has been chosen.
  void begin(double context, int limit, int lookup_tokens, int lookup_match,
             const Others& others = {}, int forced_tokens = 0);
  /// Whether the drafter should propose a further token.
  bool more() const { return more_; }
  /// It did, with this probability. 0 to 1.
  void drafted(double probability);
  /// The grammar gave one.
  void forced();

  /// Whether begin() has chosen the look-up: then nothing is drafted, even where a refresh verifies
  /// none of what was found.
  bool looks_up() const { return source_ == DraftSource::kLookup; }
  /// kDrafter stands for the drafter's and the grammar's.
  DraftSource source() const { return depth() > 0 ? source_ : DraftSource::kNone; }
  int depth() const { return refresh_ ? depth_ / 2 : depth_; }
  void end(const RoundOutcome& outcome);

  /// Tokens per second that the latest round promised.
  double rate() const { return rate_; }
  /// Tokens expected of the round as it stands.
  double tokens() const;

 private:
  struct Plan {
    double rate = 0;
    int depth = 0;
  };

  Plan best(const std::vector<double>& chances, int free) const;
  void add(double chance, double confidence, bool by_drafter);
  void decide();
  bool refresh_due() const;

  DepthEstimates& estimates_;
  const bool has_drafter_;
  RecentAcceptance recent_drafter_, recent_lookup_, recent_grammar_;

  // The round.
  double context_ = 0;
  Others others_;
  int limit_ = 0, lookup_match_ = 0;
  DraftSource source_ = DraftSource::kNone;
  bool more_ = false;
  bool refresh_ = false;  // half as deep as seems best, to know what that costs
  int depth_ = 0;
  double rate_ = 0;
  std::vector<double> verify_;       // [limit + 1] seconds to verify that many drafts
  std::vector<double> draft_;        // [limit + 1] seconds to draft them
  std::vector<double> expected_;     // [limit] chances of the drafter's tokens not drafted yet
  std::vector<double> chances_;      // of those drafted
  std::vector<double> confidences_;  // on the model's axis
  std::vector<bool> by_drafter_;     // or the grammar's
  int steps_ = 0;                    // draft steps made
  std::vector<double> lookup_chances_;

  int usual_ = 1;          // rows of the latest pass: what others are compared with
  int since_refresh_ = 0;  // rounds that drafted since
  int since_peek_ = 0;     // rounds without a draft step
  int peek_interval_ = 1;
  double peek_value_ = 0;  // mean of what a first draft was worth beyond not drafting, in seconds
};

}  // namespace gemtp
