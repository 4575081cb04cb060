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

/// The state of a text between rounds.
struct DecodeState {
  std::unique_ptr<Sequence> sequence;  // K/V of every token but the pending one
  Chooser chooser;
  TokenHistory history;                                   // every token, including the pending one
  std::vector<int32_t> ends;                              // tokens that end the text, ascending
  std::unique_ptr<ConstrainedText> constraint = nullptr;  // the generated text; null: unconstrained
  // The token that is chosen but not yet run through the target, and the target's hidden state
  // (after the final norm) at the previous position, [hidden].
  int32_t pending = -1;
  std::vector<float> hidden{};

  bool is_end(int32_t token) const;
};

/// The tokens that a round verifies.
struct Proposal {
  std::vector<int32_t> rows;         // the pending token, then the drafts
  std::vector<DraftSource> sources;  // source of each draft
  double draft_seconds = 0;
  double expected_tokens = 1;  // expected tokens of the round
};

struct Round {
  std::vector<int32_t> tokens;      // chosen by the target; the last one is the new pending token
  std::vector<DraftSource> drafts;  // source of each verified draft
  int accepted = 0;                 // drafts equal to the target's choice: tokens[0 .. accepted)
  bool complete = false;            // the constraint allows only an end next

  int drafted() const { return static_cast<int>(drafts.size()); }
};

/// The rounds of one generation: propose(), a pass of the target over the rows, accept(). Both
/// calls must be made within an Exclusive of the engine.
class Speculation {
 public:
  /// draft: as for depth_policy(). Tokens forced by the constraint are proposed before the drafter
  /// is asked. An end token ends a round.
  Speculation(Engine& engine, int draft)
      : engine_(engine), policy_(depth_policy(engine, draft)), idle_since_(monotonic_seconds()) {}

  /// Adds the next token of the prompt.
  void push(int32_t token) { policy_->push(token); }
  /// Chooses the first token from the prompt's last row.
  Round first(const Outputs& outputs, int64_t row, DecodeState& state) {
    return choose({}, outputs, row, state);
  }

  /// Proposes at most `most` tokens after the pending one. If it is called again instead of
  /// accept(), the round begins anew.
  Proposal propose(DecodeState& state, int most, const Others& others);
  /// Called after the pass: its outputs begin at `row`, and state.sequence holds the rows. Accepts
  /// drafts as long as the choice equals the draft. pass_rows, pass_seconds: of the whole pass,
  /// without the choices; 0: unknown.
  Round accept(const Proposal& proposal, const Outputs& outputs, int64_t row, DecodeState& state,
               int64_t pass_rows, double pass_seconds);

  DepthReport depth_report(int64_t length) const { return policy_->report(length); }

 private:
  void draft(DecodeState& state, int limit, const std::vector<int32_t>& forced, Proposal* proposal);
  Round choose(const Proposal& proposal, const Outputs& outputs, int64_t row, DecodeState& state);

  Engine& engine_;
  const std::unique_ptr<DepthPolicy> policy_;
  double idle_since_;
  int drafted_ = 1;  // tokens by the last round in which there were any
};

}  // namespace gemtp
