// The parameters of choose(). choose/choose.h defines them; docs/sampling.md explains them to
// users.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "choose/option.h"

namespace gemtp {

class GgufFile;

/// Seed value that asks for a random seed; the stats of the generation report the seed used.
constexpr uint64_t kRandomSeed = UINT64_MAX;

struct SamplingParams {
  float temperature = 0.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // logits > 0 are divided by it, others multiplied
  float presence_penalty = 0.0f;    // subtracted once from the logit of every token seen
  float frequency_penalty = 0.0f;   // subtracted once per occurrence
  int32_t penalty_last_n = -1;      // number of latest tokens that penalties consider
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // id -> added; -inf bans
  std::vector<int32_t> suppress_tokens;               // never chosen

  bool penalises() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
};

/// The table of the numeric options. The keys are those that llama.cpp reads and writes.
template <class Params, class Fn>
  requires std::same_as<std::remove_const_t<Params>, SamplingParams>
void for_each_option(Params& p, const Fn& fn) {
  fn(p.temperature,
     {"temperature", 0, kMostReal, "0 (greedy) or a finite number above 0", "0 is greedy", "temp"});
  fn(p.top_k, {"top_k", -1, kMostWhole, "0 or -1 (off), or up to 2147483647",
               "keep the N likeliest tokens; 0 or -1: all", "top_k"});
  fn(p.top_p, {"top_p", 0, 1, "at least 0 (the likeliest token alone) and at most 1 (off)",
               "keep the likeliest tokens that sum to X; 1: all", "top_p"});
  fn(p.min_p, {"min_p", 0, 1, "at least 0 (off) and below 1",
               "drop tokens below X times the likeliest; 0: none", "min_p", false, true});
  fn(p.repetition_penalty,
     {"repetition_penalty", 0, kMostReal, "a finite number above 0 (1: off)",
      "divide logits above 0 of tokens that were there, multiply others; 1: off", "penalty_repeat",
      true});
  fn(p.presence_penalty, {"presence_penalty", -kMostReal, kMostReal, "finite (0: off)",
                          "subtract it from logits of tokens that were there; 0: off"});
  fn(p.frequency_penalty, {"frequency_penalty", -kMostReal, kMostReal, "finite (0: off)",
                           "subtract it for each time that a token was there; 0: off"});
  fn(p.penalty_last_n,
     {"penalty_last_n", -1, kMostWhole, "-1 (all tokens), 0 (none), or up to 2147483647",
      "look N tokens back for penalties; -1: all", "penalty_last_n"});
  fn(p.seed, {"seed", 0, 0x1p64, "a whole number of 64 bits",
              "with a temperature, the text is a function of it; -1: a new one"});
}

/// A sampling option with the value that the makers of a model recommend.
struct RecommendedOption {
  const char* name;
  double value;
  bool whole;  // it is an integer
};
/// The options that the file recommends in its keys general.sampling.*. Throws Error{kFile} for a
/// value outside the option's domain.
std::vector<RecommendedOption> recommended_sampling(const GgufFile& file);

/// Throws Error{kArgument} naming the first parameter outside its domain (or NaN), and the domain.
void validate(const SamplingParams& params, int32_t vocab_size);

/// Draws a random seed of 32 bits, which every JSON parser preserves.
uint64_t draw_seed();

}  // namespace gemtp
