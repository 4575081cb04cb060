// Sampling parameters of any request on logits of any weights.
#include <cmath>

#include "choose/choose.h"
#include "fuzz.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

SamplingParams any_params(Data& data, int32_t vocab) {
  SamplingParams p;
  p.temperature =
      data.ConsumeBool() ? data.ConsumeFloatingPointInRange<float>(0, 3) : any_float(data);
  p.top_k = data.ConsumeIntegralInRange(-2, 800);
  p.top_p = data.ConsumeBool() ? data.ConsumeFloatingPointInRange<float>(0, 1) : any_float(data);
  p.min_p = data.ConsumeBool() ? data.ConsumeFloatingPointInRange<float>(0, 1) : any_float(data);
  if (data.ConsumeBool()) p.repetition_penalty = any_float(data);
  if (data.ConsumeBool()) p.presence_penalty = any_float(data);
  if (data.ConsumeBool()) p.frequency_penalty = any_float(data);
  p.penalty_last_n = data.ConsumeIntegralInRange(-2, 50);
  p.seed = data.ConsumeIntegral<uint64_t>();
  for (int n = data.ConsumeIntegralInRange(0, 4); n > 0; --n)
    p.logit_bias.emplace_back(data.ConsumeIntegralInRange(-1, vocab), any_float(data));
  for (int n = data.ConsumeIntegralInRange(0, 4); n > 0; --n)
    p.suppress_tokens.push_back(data.ConsumeIntegralInRange(-1, vocab));
  return p;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Data data(bytes, size);
  const int32_t vocab = data.ConsumeIntegralInRange(1, 700);
  const SamplingParams p = any_params(data, vocab);
  TokenHistory history(p.penalty_last_n < -1 ? -1 : p.penalty_last_n);
  for (int n = data.ConsumeIntegralInRange(0, 20); n > 0; --n)
    history.push(data.ConsumeIntegralInRange(0, vocab - 1));
  std::vector<float> logits(static_cast<size_t>(vocab));
  std::vector<int32_t> ids(logits.size());
  float value = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (data.remaining_bytes() > 0) value = any_float(data);
    logits[i] = value;
    ids[i] = static_cast<int32_t>(i);
  }
  const int64_t position = data.ConsumeIntegral<uint16_t>();
  refused([&] {
    Chooser chooser(p, {}, vocab);
    const int32_t token = chooser.choose(logits.data(), nullptr, vocab, position, history);
    FUZZ_CHECK(token >= 0 && token < vocab);
    for (const int32_t banned : p.suppress_tokens) FUZZ_CHECK(token != banned);
    FUZZ_CHECK(std::isfinite(logits[static_cast<size_t>(token)]));
    // The same arguments, and the same logits with their ids, give the same token.
    FUZZ_CHECK(chooser.choose(logits.data(), nullptr, vocab, position, history) == token);
    FUZZ_CHECK(chooser.choose(logits.data(), ids.data(), vocab, position, history) == token);
    FUZZ_CHECK(chooser.choose_target(logits.data(), vocab, position, history) == token);
    const double chance = chooser.probability(logits.data(), nullptr, vocab, token, history);
    FUZZ_CHECK(chance >= 0 && chance <= 1 + 2e-5);
  });
  return 0;
}
