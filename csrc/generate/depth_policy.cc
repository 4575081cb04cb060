#include "generate/depth_policy.h"

#include <algorithm>

#include "draft/lookup.h"
#include "engine/draft_round.h"
#include "generate/speculative.h"

namespace gemtp {
namespace {

class FixedDepth final : public DepthPolicy {
 public:
  explicit FixedDepth(int depth) : depth_(depth) {}
  int limit(int most) const override { return std::min(depth_, most); }
  bool more() const override { return true; }

 private:
  const int depth_;
};

class AutoDepth final : public DepthPolicy {
 public:
  explicit AutoDepth(Engine& engine)
      : engine_(engine), control_(engine.depth_estimates(), engine.model().has_drafter()) {}

  void push(int32_t token) override { lookup_.push(token); }
  int limit(int most) const override { return most; }
  bool more() const override { return control_.more(); }
  void forced() override { control_.forced(); }
  void drafted(const DraftRound& round, int32_t token, DecodeState& state) override {
    control_.drafted(round.probability(state.chooser, token, state.history));
  }

  bool begin(const DecodeState& state, int limit, int forced, const Others& others,
             double idle) override {
    found_ = lookup_.draft(limit);
    if (state.constraint && limit > 0)
      found_.tokens.resize(static_cast<size_t>(state.constraint->allowed(found_.tokens)));
    engine_.depth_estimates().costs.pass_time(idle);
    control_.begin(engine_.model().kv_share(state.sequence->length()), limit,
                   static_cast<int>(found_.tokens.size()), found_.match, others, forced);
    return !control_.looks_up() && (control_.more() || forced > 0);
  }

  void settle(Proposal* proposal) override {
    auto& [rows, sources, seconds, expected] = *proposal;
    drafted_.assign(rows.begin() + 1, rows.end());
    if (control_.source() == DraftSource::kLookup) {
      rows.resize(1);
      rows.insert(rows.end(), found_.tokens.begin(), found_.tokens.end());
      sources.assign(found_.tokens.size(), DraftSource::kLookup);
    }
    rows.resize(static_cast<size_t>(control_.depth()) + 1);
    sources.resize(rows.size() - 1);
    expected = control_.tokens();
  }

  void end(const Proposal& proposal, const Round& round, int64_t rows, double seconds) override {
    RoundOutcome outcome{proposal.draft_seconds, seconds, static_cast<int>(rows)};
    const auto compare = [&](const std::vector<int32_t>& proposed, int* agreed, bool* missed) {
      const size_t n = std::min(proposed.size(), round.tokens.size());
      const auto end = proposed.begin() + static_cast<int64_t>(n);
      const auto differ = std::mismatch(proposed.begin(), end, round.tokens.begin()).first;
      *agreed = static_cast<int>(differ - proposed.begin());
      *missed = differ != end;
    };
    compare(drafted_, &outcome.drafter_agreed, &outcome.drafter_missed);
    compare(found_.tokens, &outcome.lookup_agreed, &outcome.lookup_missed);
    control_.end(outcome);
    learned_ = engine_.depth_estimates();
  }

  DepthReport report(int64_t length) const override {
    const CostModel& costs = learned_.costs;
    const double context = engine_.model().kv_share(length);
    DepthReport out{{},
                    {costs.draft(1), costs.draft(2) - costs.draft(1)},
                    learned_.drafter.long_run(),
                    learned_.lookup.long_run(),
                    control_.rate()};
    for (int rows = 1; rows <= kMaxDraft + 1; ++rows)
      out.verify_seconds.push_back(costs.verify(rows, context));
    return out;
  }

 private:
  Engine& engine_;
  DepthControl control_;
  Lookup lookup_;
  std::vector<int32_t> drafted_;  // the round's drafts by drafter and grammar, verified or not
  Lookup::Draft found_;           // the round's look-up
  DepthEstimates learned_;        // estimates after the latest round
};

}  // namespace

std::unique_ptr<DepthPolicy> depth_policy(Engine& engine, int draft) {
  if (draft == kAutoDraft) return std::make_unique<AutoDepth>(engine);
  return std::make_unique<FixedDepth>(draft);
}

}  // namespace gemtp
