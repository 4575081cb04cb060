// The knobs of choose(): what each does is said in choose/choose.h, and to users in
// docs/sampling.md.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace gemtp {

class GgufFile;

/// As a generation's seed: a new one, which its stats tell.
constexpr uint64_t kRandomSeed = UINT64_MAX;

struct SamplingParams {
  float temperature = 0.0f;         // 0: greedy; otherwise > 0
  int32_t top_k = 0;                // 0, -1: off
  float top_p = 1.0f;               // [0, 1]; 1: off, 0: the likeliest alone
  float min_p = 0.0f;               // [0, 1); 0: off
  float repetition_penalty = 1.0f;  // > 0; logits > 0 are divided by it, others multiplied
  float presence_penalty = 0.0f;    // finite; subtracted once from every token seen
  float frequency_penalty = 0.0f;   // finite; subtracted times the count
  int32_t penalty_last_n = -1;  // how many latest tokens the penalties look at; -1: all, 0: none
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // id -> added; -inf bans
  std::vector<int32_t> suppress_tokens;               // never chosen

  bool penalises() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
};

/// Sets the parameter of that name to a number, as exactly as it is kept. Error{kArgument}, with
/// the number as it was given, for one outside the parameter's domain (NaN included).
void set_parameter(SamplingParams* params, const char* name, double given);

/// What the makers of a model recommend, from its file's keys general.sampling.*: parameters by
/// name, those that are there. Error{kFile} for one outside its domain.
struct RecommendedParameter {
  const char* name;
  double value;
  bool whole;  // it is a whole number
};
std::vector<RecommendedParameter> recommended_sampling(const GgufFile& file);

/// Error{kArgument} naming the first parameter outside its domain (NaN included) and the domain.
void validate(const SamplingParams& params, int32_t vocab_size);

/// Of 32 bits, which every reader of JSON keeps.
uint64_t draw_seed();

}  // namespace gemtp
