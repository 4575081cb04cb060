// How many tokens a round drafts, and by whom.
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

/// What depth control has learned: seconds of a pass over 1 .. 16 rows, of a round's first draft
/// step and of a further one; how many drafts are accepted in the long run, after none that was
/// not; and the tokens per second that the latest round promised.
struct DepthReport {
  std::vector<double> verify_seconds;  // [16]
  double draft_seconds[2] = {};
  double drafter_acceptance = 0, lookup_acceptance = 0;
  double expected_rate = 0;
};

/// Of one text. A round: begin(), then, while there are fewer than limit() and more() are wanted,
/// drafted() or forced() for each; settle(); a pass; end().
class DepthPolicy {
 public:
  virtual ~DepthPolicy() = default;

  /// A token of the text has become certain.
  virtual void push(int32_t) {}
  /// Drafts of a round at most, where `most` can become tokens.
  virtual int limit(int most) const = 0;
  /// `forced`: drafts that the grammar gives, the first ones. idle: seconds since the round before.
  /// Whether anything is to be drafted.
  virtual bool begin(const DecodeState&, int /*limit*/, int /*forced*/, const Others&,
                     double /*idle*/) {
    return true;
  }
  /// Whether the drafter should propose a further token.
  virtual bool more() const = 0;
  /// It did, or the grammar gave one.
  virtual void drafted(const DraftRound&, int32_t, DecodeState&) {}
  virtual void forced() {}
  /// Leaves of what was drafted, or puts in its place, what is to be verified.
  virtual void settle(Proposal*) {}
  /// How the round went, in a pass of `rows` rows; 0 seconds: not known.
  virtual void end(const Proposal&, const Round&, int64_t /*rows*/, double /*seconds*/) {}

  /// After the latest round, in a text of `length` tokens; empty where nothing is learned.
  virtual DepthReport report(int64_t /*length*/) const { return {}; }
};

/// A round drafts `draft` tokens, the drafter's and the grammar's; kAutoDraft: as many as pay off,
/// looked up in the text, or from the drafter, if there is one.
std::unique_ptr<DepthPolicy> depth_policy(Engine& engine, int draft);
constexpr int kAutoDraft = -1;

}  // namespace gemtp
