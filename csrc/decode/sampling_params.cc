#include "decode/sampling_params.h"

#include <limits>

#include "base/error.h"

namespace gemtp {

void validate(const SamplingParams& params, int32_t vocab_size) {
  const auto require = [](bool ok, const char* name, double value, const char* domain) {
    if (!ok) {
      throw Error(ErrorKind::kArgument, format("%s is %g but must be %s", name, value, domain));
    }
  };
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto finite = [](float x) { return x > -kInfinity && x < kInfinity; };
  const SamplingParams& p = params;
  require(p.temperature >= 0 && finite(p.temperature), "temperature", p.temperature,
          "0 (greedy) or a finite number above 0");
  require(p.top_k >= 0, "top_k", p.top_k, "0 (off) or above");
  require(p.top_p > 0 && p.top_p <= 1, "top_p", p.top_p, "above 0 and at most 1 (off)");
  require(p.min_p >= 0 && p.min_p < 1, "min_p", p.min_p, "at least 0 (off) and below 1");
  require(p.repetition_penalty > 0 && finite(p.repetition_penalty), "repetition_penalty",
          p.repetition_penalty, "a finite number above 0 (1: off)");
  require(finite(p.presence_penalty), "presence_penalty", p.presence_penalty, "finite (0: off)");
  require(finite(p.frequency_penalty), "frequency_penalty", p.frequency_penalty, "finite (0: off)");
  require(p.penalty_last_n >= -1, "penalty_last_n", p.penalty_last_n,
          "-1 (all tokens), 0 (none) or above");
  for (const auto& [id, bias] : p.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorKind::kArgument,
                  format("logit_bias names token %d but the vocabulary has the ids 0 to %d", id,
                         vocab_size - 1));
    }
    if (!finite(bias) && bias != -kInfinity) {
      throw Error(
          ErrorKind::kArgument,
          format("logit_bias of token %d is %g but must be finite, or -inf to ban the token", id,
                 static_cast<double>(bias)));
    }
  }
  for (const int32_t id : p.suppress_tokens) {
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorKind::kArgument,
                  format("suppress_tokens names token %d but the vocabulary has the ids 0 to %d",
                         id, vocab_size - 1));
    }
  }
}

}  // namespace gemtp
