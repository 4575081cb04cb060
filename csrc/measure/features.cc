#include "measure/features.h"

#include <algorithm>

#include "base/error.h"
#include "engine/draft_round.h"
#include "model/kv_cache.h"

namespace gemtp {
namespace {

// Positions between two polls. The rings of sliding layers hold the keys of all of them (see
// KvCache).
constexpr int64_t kChunk = 64;

}  // namespace

std::vector<float> draft_features(OpenedModel& model, const std::vector<int32_t>& ids, int steps,
                                  const Poll& poll) {
  if (!model.has_drafter())
    throw Error(ErrorKind::kArgument, "no drafter is loaded; open the model with one");
  if (steps < 1 || steps > kMaxDraft)
    throw Error(ErrorKind::kArgument,
                format("steps is %d; it must be between 1 and %d", steps, kMaxDraft));
  model.check_ids(ids, 0);
  if (ids.size() < 2)
    throw Error(ErrorKind::kArgument, "drafting needs at least two tokens; give a longer text");

  const auto rounds = static_cast<int64_t>(ids.size()) - 1;
  Drafter& drafter = model.drafter();
  const int64_t backbone = model.config().hidden, width = drafter.config().hidden;
  const int64_t chunk = std::min(kChunk, model.options().prefill_chunk);
  KvCache kv = model.new_kv(static_cast<int64_t>(ids.size()));
  TargetOutputs outputs;
  outputs.hidden = model.backend().mirror<float>(chunk * backbone);
  Chooser greedy({}, {}, static_cast<int32_t>(model.config().vocab));
  std::vector<float> out;
  out.reserve(static_cast<size_t>(rounds * steps * width));
  for (int64_t at = 0; at < rounds; at += chunk) {
    if (poll) poll();
    const OpenedModel::Exclusive exclusive(model);
    const int64_t m = std::min(chunk, rounds - at);
    model.target().forward({&kv, ids.data() + at, m, m, HeadOutput::kNone}, outputs);
    for (int64_t i = 0; i < m; ++i) {
      int32_t token = ids[static_cast<size_t>(at + i + 1)];
      DraftRound round(drafter, kv, at + i + 1, outputs.hidden.host() + i * backbone);
      for (int step = 0; step < steps; ++step) {
        round.step(token);
        out.insert(out.end(), drafter.features(), drafter.features() + width);
        token = round.choose(greedy, TokenHistory());
      }
    }
  }
  return out;
}

}  // namespace gemtp
