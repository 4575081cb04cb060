// Decides how many tokens to draft and from which source: each round uses what promises the most
// tokens per second.
//
// Let a_j be the chance that draft j is accepted if all before it were. A round that verifies K
// drafts yields 1 + sum_{k<=K} prod_{j<=k} a_j tokens and takes T_verify(K + 1) + T_draft(K); K = 0
// is plain decoding. Before a round, the chances are those of drafts that do not exist yet, and the
// best (source, K) sets the rate: the worth of a second in tokens. During the round the drafter
// reports its probability of each token it proposes, the chances are predicted again, and drafting
// continues as long as some further depth is worth its time at that rate. Of the drafts made, as
// many are verified as are worth it. When drafting does not pay, a single test draft is made from
// time to time and compared with the token that comes, at the cost of a draft step: ever more
// rarely while it would not have paid, and again at once as soon as it pays. A look-up costs
// nothing, so its guesses are compared in every round. Tokens that a grammar forces cost nothing
// either; they may come before, between and after the drafter's tokens, and need no draft steps.
//
// Times come from CostModel, chances from AcceptanceModel. A depth with an uncertain cost is judged
// somewhat optimistically, so that a depth that might be better is tried before long. Nothing here
// can change the text: it decides what is guessed, never what is chosen.
#pragma once

#include <cstdint>
#include <vector>

#include "draft/acceptance.h"
#include "draft/costs.h"

namespace gemtp {

/// The source that proposed a token.
enum class DraftSource { kNone, kDrafter, kLookup, kGrammar };
const char* draft_source_name(DraftSource source);

/// The estimates that an engine has learned about its files and its machine, shared by its
/// sequences.
struct DepthEstimates {
  explicit DepthEstimates(const BytesRead& bytes = {}) : costs(bytes) {}

  CostModel costs;
  AcceptanceModel drafter = drafter_acceptance();
  AcceptanceModel lookup = lookup_acceptance();
  AcceptanceModel grammar = grammar_acceptance();
  int deepest = 1;  // most drafts accepted in a round so far; a round tries at most 2 * deepest + 1
};

/// The rows of other sequences in the same pass.
struct Others {
  int rows = 0;        // rows to be verified
  double tokens = 0;   // tokens expected of them
  double context = 0;  // sum of their contexts, as in CostModel
};

/// The outcome of a round.
struct RoundOutcome {
  double draft_seconds = 0;   // time of all draft steps
  double verify_seconds = 0;  // time of the target's pass and its choices; 0: unknown
  int rows = 0;               // rows of that pass, including those of others
  // For each source's proposal, verified or not: the number of leading tokens that the target chose
  // too, and whether the next token was seen to be wrong (rejected, or different from the token
  // chosen in its place). The grammar's tokens count as the drafter's.
  int drafter_agreed = 0;
  bool drafter_missed = false;
  int lookup_agreed = 0;
  bool lookup_missed = false;
};

/// Decides for one sequence. A round is: begin(); while (more()) draft a token and call drafted(),
/// or forced() for a token that the grammar forces; verify depth() tokens of source(); end().
class DepthControl {
 public:
  DepthControl(DepthEstimates& estimates, bool has_drafter)
      : estimates_(estimates), has_drafter_(has_drafter) {}

  /// Begins a round. context: as in CostModel. limit: most drafts that can become tokens.
  /// lookup_tokens: number of tokens that the look-up offers; lookup_match: length of the match
  /// they follow (Lookup::Draft::match). forced_tokens: number of first drafts that the grammar
  /// forces; the caller passes them to forced() next, unless the look-up has been chosen. With
  /// `others`, the control maximizes the tokens of all sequences per second of the shared pass.
  void begin(double context, int limit, int lookup_tokens, int lookup_match,
             const Others& others = {}, int forced_tokens = 0);
  /// Whether the drafter should propose a further token.
  bool more() const { return more_; }
  /// The drafter has proposed a token, to which it gives this probability, 0 to 1.
  void drafted(double probability);
  /// The grammar has forced a token.
  void forced();

  /// Whether begin() has chosen the look-up. Then nothing is drafted, even if a refresh verifies
  /// none of the tokens found.
  bool looks_up() const { return source_ == DraftSource::kLookup; }
  /// kDrafter stands for tokens of the drafter and the grammar.
  DraftSource source() const { return depth() > 0 ? source_ : DraftSource::kNone; }
  int depth() const { return refresh_ ? depth_ / 2 : depth_; }
  void end(const RoundOutcome& outcome);

  /// Tokens per second expected of the latest round.
  double rate() const { return rate_; }
  /// Tokens expected of the current round as decided so far.
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

  // State of the round.
  double context_ = 0;
  Others others_;
  int limit_ = 0, lookup_match_ = 0;
  DraftSource source_ = DraftSource::kNone;
  bool more_ = false;
  bool refresh_ = false;  // verify only half the depth, to learn its cost
  int depth_ = 0;
  double rate_ = 0;
  std::vector<double> verify_;       // [limit + 1] seconds to verify that many drafts
  std::vector<double> draft_;        // [limit + 1] seconds to draft them
  std::vector<double> expected_;     // [limit] chances of tokens not drafted yet
  std::vector<double> chances_;      // chances of the drafted tokens
  std::vector<double> confidences_;  // of the drafted tokens, on the model's axis
  std::vector<bool> by_drafter_;     // false: forced by the grammar
  int steps_ = 0;                    // draft steps made
  std::vector<double> lookup_chances_;

  int usual_ = 1;          // rows of the latest pass; costs of others are compared with its cost
  int since_refresh_ = 0;  // rounds with drafts since the latest refresh
  int since_peek_ = 0;     // rounds since the latest draft step
  int peek_interval_ = 1;
  double peek_value_ = 0;  // mean value of a first draft over no draft, in seconds
};

}  // namespace gemtp
