// The statistics of a generation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gemtp {

struct GenerationStats {
  int64_t rounds = 0;                                 // verify passes
  int64_t drafted = 0;                                // drafts verified
  int64_t accepted = 0;                               // drafts that became tokens
  int64_t lookup_drafted = 0, lookup_accepted = 0;    // those looked up in the text
  int64_t grammar_drafted = 0, grammar_accepted = 0;  // those forced by the constraint
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;             // prompt tokens reused from an earlier call's K/V
  double prompt_seconds = 0;             // time until the first token
  int64_t tokens = 0;                    // generated tokens
  double decode_seconds = 0;             // time after the first token
  std::vector<int64_t> depth_histogram;  // [k]: rounds that drafted k tokens
  std::vector<int64_t> drafted_at;       // [i]: rounds that drafted an (i+1)-th token
  std::vector<int64_t> accepted_at;      // [i]: rounds that accepted it
  uint64_t seed = 0;                     // the seed used, also for kRandomSeed
  std::string device;                    // that computed it, e.g. "cuda:0"
  bool exact = true;  // it has proved that it gives the CPU's bytes, or is the CPU

  /// Decoding speed: the tokens after the first, divided by their time.
  double tokens_per_second() const {
    return tokens > 1 && decode_seconds > 0 ? static_cast<double>(tokens - 1) / decode_seconds : 0;
  }
};

/// The table of the figures: calls fn(name, figure) for each.
template <class Fn>
void for_each_figure(const GenerationStats& s, const Fn& fn) {
  fn("rounds", s.rounds);
  fn("drafted", s.drafted);
  fn("accepted", s.accepted);
  fn("lookup_drafted", s.lookup_drafted);
  fn("lookup_accepted", s.lookup_accepted);
  fn("grammar_drafted", s.grammar_drafted);
  fn("grammar_accepted", s.grammar_accepted);
  fn("prompt_tokens", s.prompt_tokens);
  fn("cached_tokens", s.cached_tokens);
  fn("prompt_seconds", s.prompt_seconds);
  fn("tokens", s.tokens);
  fn("decode_seconds", s.decode_seconds);
  fn("tokens_per_second", s.tokens_per_second());
  fn("depth_histogram", s.depth_histogram);
  fn("drafted_at", s.drafted_at);
  fn("accepted_at", s.accepted_at);
  fn("seed", s.seed);
  fn("device", s.device);
  fn("exact", s.exact);
}

}  // namespace gemtp
