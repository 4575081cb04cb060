// Depth control with any clock and any luck: it drafts within its limits, and its estimates stay
// numbers.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "draft/depth.h"
#include "fuzz.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

double any_seconds(Data& data) {
  return data.ConsumeBool() ? data.ConsumeFloatingPointInRange<double>(1e-6, 1e-1)
                            : any_double(data);
}

double any_chance(Data& data) {
  const double p = any_double(data);
  return p >= 0 && p <= 1 ? p : 0.5;
}

BytesRead any_bytes(Data& data) {
  BytesRead bytes;
  bytes.draft = data.ConsumeFloatingPointInRange<double>(1e-6, 50);
  if (data.ConsumeBool())
    for (double& v : bytes.verify) v = data.ConsumeFloatingPointInRange<double>(0, 20);
  return bytes;
}

RoundOutcome any_outcome(Data& data, int drafted, int looked_up) {
  RoundOutcome out;
  out.draft_seconds = any_seconds(data);
  out.verify_seconds = any_seconds(data);
  out.rows = data.ConsumeIntegralInRange(1, 64);
  out.drafter_agreed = data.ConsumeIntegralInRange(0, drafted);
  out.drafter_missed = out.drafter_agreed < drafted && data.ConsumeBool();
  out.lookup_agreed = data.ConsumeIntegralInRange(0, looked_up);
  out.lookup_missed = out.lookup_agreed < looked_up && data.ConsumeBool();
  return out;
}

void check_estimates(const DepthEstimates& estimates, double context) {
  for (const int rows : {1, 3, 16, 40}) {
    const double seconds = estimates.costs.verify(rows, context);
    if (!(std::isfinite(seconds) && seconds > 0))
      std::fprintf(stderr, "%d rows take %g seconds\n", rows, seconds);
    FUZZ_CHECK(std::isfinite(seconds) && seconds > 0);
  }
  const double seconds = estimates.costs.draft(2);
  FUZZ_CHECK(std::isfinite(seconds) && seconds > 0);
  FUZZ_CHECK(estimates.costs.doubt(8, 1, context) >= 0);
}

void run_round(DepthEstimates& estimates, DepthControl& control, Data& data) {
  const int limit = data.ConsumeIntegralInRange(0, kMaxDraft);
  const int found = std::min(data.ConsumeIntegralInRange(0, kMaxDraft), limit);
  const int forced = std::min(data.ConsumeIntegralInRange(0, kMaxDraft), limit);
  const double context = data.ConsumeFloatingPointInRange<double>(0, 8);
  Others others;
  if (data.ConsumeBool()) {
    others.rows = data.ConsumeIntegralInRange(0, 200);
    others.tokens = data.ConsumeFloatingPointInRange<double>(0, 200);
    others.context = data.ConsumeFloatingPointInRange<double>(0, 64);
  }
  control.begin(context, limit, found, data.ConsumeIntegralInRange(0, 40), others, forced);
  int drafted = 0;
  if (!control.looks_up())
    for (; drafted < forced; ++drafted) control.forced();
  while (control.more()) {
    control.drafted(any_chance(data));
    FUZZ_CHECK(++drafted <= limit);
  }
  FUZZ_CHECK(control.depth() >= 0 && control.depth() <= limit);
  FUZZ_CHECK(std::isfinite(control.rate()) && control.rate() >= 0);
  FUZZ_CHECK(std::isfinite(control.tokens()) && control.tokens() <= limit + 1);
  control.end(any_outcome(data, drafted, found));
  check_estimates(estimates, context);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Data data(bytes, size);
  DepthEstimates estimates(any_bytes(data));
  DepthControl one(estimates, data.ConsumeBool()), other(estimates, data.ConsumeBool());
  for (int round = 0; round < 400 && data.remaining_bytes() > 0; ++round) {
    run_round(estimates, data.ConsumeBool() ? one : other, data);
    if (data.ConsumeIntegralInRange(0, 9) == 0)
      estimates.costs.pass_time(data.ConsumeFloatingPointInRange<double>(0, 1e5));
  }
  return 0;
}
