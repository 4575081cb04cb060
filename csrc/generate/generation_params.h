// The parameters of a generation.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "choose/choose.h"
#include "choose/constraint.h"
#include "choose/distribution.h"
#include "engine/engine.h"
#include "generate/depth_policy.h"

namespace gemtp {

struct GenerationParams {
  SamplingParams sampling;           // the seed may be kRandomSeed
  int64_t max_tokens = 128;          // -1: as many as the context holds
  std::vector<std::string> stop;     // strings that end the text and are not part of it
  int draft = kAutoDraft;            // drafts per round; 0: none; kAutoDraft: as many as pay off
  bool ignore_eos = false;           // treat end tokens like any other token
  int logprobs = -1;                 // of each token and this many of the likeliest; -1: none
  LogitsProcessor logits_processor;  // empty: none
  std::shared_ptr<Constraint> constraint;  // for this generation only; null: none
  bool wait = false;  // wait for a sequence (SequencePool::Guest) instead of throwing
};

/// The table of the numeric options, including those of `sampling`.
template <class Params, class Fn>
  requires std::same_as<std::remove_const_t<Params>, GenerationParams>
void for_each_option(Params& p, const Fn& fn) {
  static_assert(kMaxDraft == 15 && kMaxTopLogprobs == 20);  // as the sentences have it
  fn(p.max_tokens, {"max_tokens", -1, 0x1p63, "-1 (what the context holds), or from 0 to 2^63",
                    "-1: what the context holds"});
  for_each_option(p.sampling, fn);
  fn(p.draft, {"draft", kAutoDraft, kMaxDraft, "\"auto\" or a number from 0 to 15",
               "tokens to draft a round; changes the speed, never the text"});
  fn(p.logprobs, {"logprobs", -1, kMaxTopLogprobs,
                  "a number from 0 to 20, the likeliest tokens to be named beside the chosen one",
                  "log-probabilities of each token and of the N likeliest in its place; -1: none"});
}

}  // namespace gemtp
