// The draft-verify round.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "choose/choose.h"
#include "engine/engine.h"
#include "engine/outputs.h"
#include "engine/sequence.h"
#include "generate/depth_policy.h"

namespace gemtp {

/// A text between rounds.
struct DecodeState {
  std::unique_ptr<Sequence> sequence;  // K/V of every token but the pending one
  Chooser chooser;
  TokenHistory history;                                   // every token, the pending one included
  std::vector<int32_t> ends;                              // tokens that end the text, ascending
  std::unique_ptr<ConstrainedText> constraint = nullptr;  // what is generated; null: free
  // The token that is chosen but not yet run through the target, and the target's hidden state
  // (after the final norm) at the position before it, [hidden].
  int32_t pending = -1;
  std::vector<float> hidden{};

  bool is_end(int32_t token) const;
};

/// What a round verifies.
struct Proposal {
  std::vector<int32_t> rows;         // the pending token and the drafts behind it
  std::vector<DraftSource> sources;  // who proposed each of the drafts
  double draft_seconds = 0;
  double expected_tokens = 1;  // of the round
};

struct Round {
  std::vector<int32_t> tokens;      // chosen by the target; the last one is the new pending token
  std::vector<DraftSource> drafts;  // who proposed each of those that were verified
  int accepted = 0;                 // drafts that were the target's choice: tokens[0 .. accepted)
  bool complete = false;            // the constraint lets nothing but an end follow

  int drafted() const { return static_cast<int>(drafts.size()); }
};

/// The rounds of one generation: propose(), a pass of the target over the rows, accept(). Both in
/// an Exclusive of the engine.
class Speculation {
 public:
  /// draft: as for depth_policy(). What the constraint forces is proposed before the drafter is
  /// asked. An end ends a round.
  Speculation(Engine& engine, int draft)
      : engine_(engine), policy_(depth_policy(engine, draft)), idle_since_(monotonic_seconds()) {}

  /// The next token of the prompt.
  void push(int32_t token) { policy_->push(token); }
  /// The first token, chosen from the prompt's last row.
  Round first(const Outputs& outputs, int64_t row, DecodeState& state) {
    return choose({}, outputs, row, state);
  }

  /// At most `most` tokens behind the pending one. May be called again instead of accept(): the
  /// round begins anew.
  Proposal propose(DecodeState& state, int most, const Others& others);
  /// The pass has run, its outputs are those from `row` on, and state.sequence holds the rows. They
  /// are walked while choice == draft. pass_rows, pass_seconds: of the whole pass, choices not
  /// included; 0: not known.
  Round accept(const Proposal& proposal, const Outputs& outputs, int64_t row, DecodeState& state,
               int64_t pass_rows, double pass_seconds);

  DepthReport depth_report(int64_t length) const { return policy_->report(length); }

 private:
  void draft(DecodeState& state, int limit, const std::vector<int32_t>& forced, Proposal* proposal);
  Round choose(const Proposal& proposal, const Outputs& outputs, int64_t row, DecodeState& state);

  Engine& engine_;
  const std::unique_ptr<DepthPolicy> policy_;
  double idle_since_;
};

}  // namespace gemtp
