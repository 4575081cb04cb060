#include "choose/sampling_params.h"

#include <cmath>
#include <cstdlib>
#include <random>
#include <string>

#include "base/error.h"
#include "gguf/reader.h"

namespace gemtp {

std::vector<RecommendedOption> recommended_sampling(const GgufFile& file) {
  std::vector<RecommendedOption> out;
  const SamplingParams defaults;
  for_each_option(defaults, [&](auto member, const Option& option) {
    if (!option.key) return;
    const std::string key = std::string("general.sampling.") + option.key;
    if (!file.has(key)) return;
    constexpr bool kWhole = std::is_integral_v<decltype(member)>;
    const double value = kWhole ? static_cast<double>(*file.get_int(key)) : *file.get_float(key);
    check_given(ErrorKind::kFile, file.quoted_path() + ": key '" + key + "'", value, option,
                kWhole);
    // Gives 0.95 instead of the double nearest to the float 0.95f.
    const double shortest = std::strtod(shown(static_cast<float>(value)).c_str(), nullptr);
    out.push_back({option.name, kWhole ? value : shortest, kWhole});
  });
  return out;
}

void validate(const SamplingParams& params, int32_t vocab_size) {
  check_options(params);
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorKind::kArgument,
                  format("logit_bias names token %d but the vocabulary has the ids 0 to %d", id,
                         vocab_size - 1));
    }
    if (!std::isfinite(bias) && bias != -std::numeric_limits<float>::infinity()) {
      throw Error(
          ErrorKind::kArgument,
          format("logit_bias of token %d is %g but must be finite, or -inf to ban the token", id,
                 static_cast<double>(bias)));
    }
  }
  for (const int32_t id : params.suppress_tokens) {
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorKind::kArgument,
                  format("suppress_tokens names token %d but the vocabulary has the ids 0 to %d",
                         id, vocab_size - 1));
    }
  }
}

uint64_t draw_seed() { return std::random_device()() & 0xFFFFFFFFu; }

}  // namespace gemtp
