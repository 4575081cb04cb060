// What a generation is asked for.
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
  SamplingParams sampling;        // its seed may be kRandomSeed
  int64_t max_tokens = 128;       // -1: until the context is full
  std::vector<std::string> stop;  // strings that end the text; not part of it
  int draft = kAutoDraft;         // tokens to draft a round; 0: none; kAutoDraft: what pays off
  bool ignore_eos = false;        // end tokens are tokens like any other
  int logprobs = -1;  // of each token, and of so many of the likeliest in its place; -1: none
  LogitsProcessor logits_processor;        // empty: none
  std::shared_ptr<Constraint> constraint;  // what may be generated, for this generation alone
  bool wait = false;  // for a sequence, as a SequencePool::Guest; else there is one, or an error
};

/// The table of its numbers, those of its sampling among them.
template <class Params, class Fn>
  requires std::same_as<std::remove_const_t<Params>, GenerationParams>
void for_each_option(Params& p, const Fn& fn) {
  static_assert(kMaxDraft == 15 && kMaxTopLogprobs == 20);  // as the sentences have it
  fn(p.max_tokens, {"max_tokens", -1, 0x1p63, "0 or more, or -1 for what the context holds",
                    "-1: what the context holds"});
  for_each_option(p.sampling, fn);
  fn(p.draft, {"draft", kAutoDraft, kMaxDraft, "\"auto\" or a number from 0 to 15",
               "tokens to draft a round; changes the speed, never the text"});
  fn(p.logprobs, {"logprobs", -1, kMaxTopLogprobs,
                  "a number from 0 to 20, the likeliest tokens to be named beside the chosen one",
                  "log-probabilities of each token and of the N likeliest in its place; -1: none"});
}

}  // namespace gemtp
