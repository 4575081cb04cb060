#include "measure/measured_costs.h"

#include <cmath>
#include <map>

#include "base/error.h"

namespace gemtp {

void start_from(Engine& engine, const std::vector<VerifyCost>& verify,
                const std::vector<DraftCost>& draft) {
  const auto check = [](int64_t context, double seconds) {
    if (!(seconds > 0) || !std::isfinite(seconds))
      throw Error(ErrorKind::kArgument,
                  format("a measured time is %g seconds; it must be positive", seconds));
    if (context < 0)
      throw Error(ErrorKind::kArgument, "the context of a measured time is negative");
  };
  for (const VerifyCost& v : verify) {
    check(v.context, v.seconds);
    if (v.rows < 1 || v.rows > kMaxDraft + 1)
      throw Error(ErrorKind::kArgument, format("a measured pass has %d rows; it must have 1 to %d",
                                               v.rows, kMaxDraft + 1));
  }
  std::map<int64_t, double> first;  // context -> seconds
  for (const DraftCost& d : draft) {
    check(d.context, d.seconds);
    if (d.step < 0 || d.step > 1)
      throw Error(ErrorKind::kArgument,
                  format("a measured draft step is %d; it must be 0 or 1", d.step));
    if (d.step == 0) first[d.context] = d.seconds;
  }
  OpenedModel& model = engine.model();
  const OpenedModel::Exclusive exclusive(model);
  CostModel& costs = engine.depth_estimates().costs;
  // Each cost is the median of several samples, so it counts like a few single times. The first
  // contexts come last, so that the estimate ends where most texts begin.
  for (int repeat = 0; repeat < 3; ++repeat) {
    for (auto v = verify.rbegin(); v != verify.rend(); ++v)
      costs.observe_verify(v->rows, model.kv_share(v->context), v->seconds);
    for (auto d = draft.rbegin(); d != draft.rend(); ++d) {
      if (d->step == 0)
        costs.observe_draft(1, model.kv_share(d->context), d->seconds);
      else if (const auto one = first.find(d->context); one != first.end())
        costs.observe_draft(2, model.kv_share(d->context), one->second + d->seconds);
    }
  }
}

}  // namespace gemtp
