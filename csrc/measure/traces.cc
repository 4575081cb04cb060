#include "measure/traces.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "choose/choose.h"
#include "engine/draft_round.h"

namespace gemtp {

void trace_logits(OpenedModel& model, const std::vector<int32_t>& ids, float* out) {
  model.check_ids(ids, 0);
  const OpenedModel::Exclusive exclusive(model);
  const int64_t chunk = model.options().prefill_chunk;
  KvCache kv = model.new_kv(model.context());
  constexpr int64_t kLogitRows = 32;  // rows at a time
  const int64_t vocab = model.config().vocab, width = model.config().hidden;
  Backend& backend = model.backend();
  TargetOutputs outputs;
  outputs.hidden = backend.mirror<float>(chunk * width);
  outputs.best = backend.mirror<BestLogit>(kLogitRows);
  outputs.logits = backend.mirror<float>(kLogitRows * vocab);
  std::vector<Device<float>> logits;
  for (int64_t i = 0; i < kLogitRows; ++i) logits.push_back(outputs.logits.device() + i * vocab);
  const auto n = static_cast<int64_t>(ids.size());
  for (int64_t at = 0; at < n; at += chunk) {
    const int64_t m = std::min(n - at, chunk);
    model.target().forward({&kv, ids.data() + at, m, m, HeadOutput::kNone}, outputs);
    for (int64_t row = 0; row < m; row += kLogitRows) {
      const int64_t rows = std::min(kLogitRows, m - row);
      backend.head(*model.target_weights().head, outputs.hidden.device() + row * width, rows,
                   model.config().softcap, logits, outputs.best.device());
      backend.fetch(outputs.logits, 0, rows * vocab);
      backend.wait();
      std::copy_n(outputs.logits.host(), rows * vocab, out + (at + row) * vocab);
    }
  }
}

DraftTrace trace_drafts(Engine& engine, const std::vector<int32_t>& ids, int k) {
  OpenedModel& model = engine.model();
  if (!model.has_drafter())
    throw Error(ErrorKind::kArgument, "no drafter is loaded; open the model with one");
  if (k < 1 || k > kMaxDraft)
    throw Error(ErrorKind::kArgument, format("k is %d; it must be between 1 and %d", k, kMaxDraft));
  model.check_ids(ids, 0);
  if (ids.size() < 2)
    throw Error(ErrorKind::kArgument,
                "drafting needs at least two tokens: the last is the pending one, and the drafter "
                "starts from the target's hidden state before it");
  const std::vector<int32_t> prompt(ids.begin(), ids.end() - 1);
  std::unique_ptr<Sequence> sequence = engine.sequences().take(prompt);
  const OpenedModel::Exclusive exclusive(model);
  Drafter& drafter = model.drafter();
  Outputs& outputs = engine.outputs();
  sequence->prefill(model.target(), prompt.data(), static_cast<int64_t>(prompt.size()),
                    model.options().prefill_chunk, HeadOutput::kNone, outputs);
  DraftTrace trace;
  const auto vocab = static_cast<size_t>(model.config().vocab);
  trace.logits.assign(vocab * static_cast<size_t>(k), -std::numeric_limits<float>::infinity());
  int32_t token = ids.back();
  Chooser greedy({}, {}, static_cast<int32_t>(model.config().vocab));
  const float* h = outputs.hidden(0);
  DraftRound round(drafter, sequence->kv(), sequence->length(), h);
  for (int i = 0; i < k; ++i) {
    round.step(token);
    const int64_t n = drafter.candidate_count();
    const int32_t* candidates = drafter.candidates();
    float* row = trace.logits.data() + static_cast<size_t>(i) * vocab;
    for (int64_t c = 0; c < n; ++c) row[candidates ? candidates[c] : c] = drafter.logits()[c];
    token = round.choose(greedy, TokenHistory());
    trace.tokens.push_back(token);
    trace.hidden.insert(trace.hidden.end(), drafter.hidden(),
                        drafter.hidden() + model.config().hidden);
  }
  engine.sequences().give_back(std::move(sequence));
  return trace;
}

}  // namespace gemtp
