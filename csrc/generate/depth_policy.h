// Decides how many tokens a round drafts, and from which source.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "draft/depth.h"
#include "engine/engine.h"

namespace gemtp {

class DraftRound;
struct DecodeState;
struct Proposal;
struct Round;

/// What the depth control has learned.
struct DepthReport {
  std::vector<double> verify_seconds;  // [16]: of a pass over 1 .. 16 rows
  double draft_seconds[2] = {};        // of a round's first draft step, and of a further one
  // Shares of drafts accepted in the long run, of those whose predecessors were all accepted.
  double drafter_acceptance = 0, lookup_acceptance = 0;
  double expected_rate = 0;  // tokens per second expected of the latest round
};

/// The policy for one text. A round is: begin(); while there are fewer than limit() drafts and
/// more() is true, drafted() or forced() for each new one; settle(); a pass; end().
class DepthPolicy {
 public:
  virtual ~DepthPolicy() = default;

  /// Adds a token of the text that is certain.
  virtual void push(int32_t) {}
  /// Most drafts of a round, if `most` can become tokens.
  virtual int limit(int most) const = 0;
  /// Begins a round. forced: number of first drafts that the grammar forces; idle: seconds since
  /// the previous round. Returns whether anything should be drafted.
  virtual bool begin(const DecodeState&, int /*limit*/, int /*forced*/, const Others&,
                     double /*idle*/) {
    return true;
  }
  /// Whether the drafter should propose a further token.
  virtual bool more() const = 0;
  /// The drafter has proposed a token; the grammar has forced one.
  virtual void drafted(const DraftRound&, int32_t, DecodeState&) {}
  virtual void forced() {}
  /// Reduces the drafts to those to be verified, or replaces them.
  virtual void settle(Proposal*) {}
  /// Ends the round, with its outcome in a pass of `rows` rows; seconds: 0 if unknown.
  virtual void end(const Proposal&, const Round&, int64_t /*rows*/, double /*seconds*/) {}

  /// The report after the latest round, in a text of `length` tokens; empty if the policy does not
  /// learn.
  virtual DepthReport report(int64_t /*length*/) const { return {}; }
};

/// Makes the policy whose rounds draft `draft` tokens by drafter and grammar; kAutoDraft: as many
/// as pay off, from the look-up or, if there is one, the drafter.
std::unique_ptr<DepthPolicy> depth_policy(Engine& engine, int draft);
constexpr int kAutoDraft = -1;

}  // namespace gemtp
