#include "decode/speculative.h"

#include <algorithm>

#include "base/error.h"

namespace gemtp {
namespace {

// Proposes up to `depth` tokens after pending.token, chosen exactly as the target will choose: same
// function, same noise, same history. Fewer when the candidates of an ordered head are all banned,
// by bias or suppression: the target, which sees the whole vocabulary, may well have a choice.
std::vector<int32_t> propose(Drafter& drafter, const Session& session, const Pending& pending,
                             Chooser& chooser, TokenHistory& history, int depth) {
  const int64_t p = session.length();
  std::vector<int32_t> drafts;
  std::vector<float> h = pending.hidden;
  int32_t token = pending.token;
  drafter.begin_round(session.kv(), p);
  for (int i = 0; i < depth; ++i) {
    drafter.step(token, h.data(), h.data());
    try {
      token = chooser.choose(drafter.logits(), drafter.candidates(), drafter.candidate_count(),
                             p + 1 + i, history);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kArgument) throw;
      break;  // nothing left to propose
    }
    history.push(token);
    drafts.push_back(token);
  }
  for (size_t i = 0; i < drafts.size(); ++i) history.pop();
  return drafts;
}

}  // namespace

Round run_round(Target& target, Drafter* drafter, Session& session, Pending& pending,
                Chooser& chooser, TokenHistory& history, int depth,
                const std::vector<int32_t>& ends) {
  GEMTP_ASSERT(depth == 0 || drafter);
  const int64_t p = session.length();
  std::vector<int32_t> rows{pending.token};
  if (depth > 0) {
    const auto drafts = propose(*drafter, session, pending, chooser, history, depth);
    rows.insert(rows.end(), drafts.begin(), drafts.end());
  }
  const auto m = static_cast<int64_t>(rows.size());
  session.forward(target, rows.data(), m, m, head_output(chooser));

  Round round;
  round.drafted = static_cast<int>(m - 1);
  int64_t row = 0;
  for (;; ++row) {
    const int32_t choice = session.choose(row, chooser, p + 1 + row, history);
    history.push(choice);
    round.tokens.push_back(choice);
    const bool agreed = row + 1 < m && choice == rows[static_cast<size_t>(row + 1)];
    round.accepted += agreed;
    if (!agreed || std::binary_search(ends.begin(), ends.end(), choice)) break;
  }
  // Row `row` was the last one run on true tokens; what lies behind it was rejected.
  session.truncate(p + row + 1);
  pending.token = round.tokens.back();
  const float* h = session.hidden(row);
  pending.hidden.assign(h, h + target.config().hidden);
  return round;
}

}  // namespace gemtp
