// choose(logits, params, seed, position, history) -> token: the one place where a token is picked,
// for the target and for the drafter alike. A pure function: its randomness is Gumbel noise keyed
// by (seed, position, token id), so that verifying a draft is comparing two choices for equality.
//
// Order of operations, on the logits that the model gives:
//   suppressed ids -> repetition, presence and frequency penalties -> logit bias -> mask of a
//   constraint -> temperature -> top-k -> top-p -> min-p -> argmax of (logit / temperature + Gumbel
//   noise).
// What is masked does not exist for anything that follows. (It is taken out first: none of the
// steps before looks at other tokens.) The Gumbel-max trick makes the last step an exact draw from
// the softmax of what is left (Gumbel 1954; Maddison et al. 2014). temperature 0 is the argmax of
// the penalised, biased logits; equal logits go to the smaller id everywhere.
//
// The same bits on every machine: float and double operations in one fixed order, no libm, and sums
// of probabilities in integers, which no order changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "choose/sampling_params.h"
#include "choose/token_history.h"

namespace gemtp {

/// What a caller does to the target's logits [vocab] before everything else. tokens: the prompt and
/// all that has been chosen since. Called once for each token, in order, by the thread that runs
/// the pass, which it holds up. The text is a function of the parameters if this is one of its
/// arguments. May throw, which ends the generation.
using LogitsProcessor =
    std::function<void(const std::vector<int32_t>& tokens, float* logits, int64_t vocab)>;

class GumbelNoise;  // the noise of one (seed, position)

class Chooser {
 public:
  /// `suppressed`: ids that are never chosen, besides those of `params`. Validates; vocab_size at
  /// most 2^21.
  Chooser(SamplingParams params, const std::vector<int32_t>& suppressed, int32_t vocab_size);

  /// The token for `position` (absolute index in the sequence of the token being chosen).
  /// logits: [n] f32, read only. ids: [n] token ids, strictly ascending, or nullptr when logit i
  /// belongs to token i. Error{kModel} when a logit is NaN or +infinity or none is finite ("the
  /// weights are damaged"), Error{kArgument} when suppression, bias and constraint leave no token.
  /// Not thread-safe: keeps scratch between calls.
  int32_t choose(const float* logits, const int32_t* ids, int64_t n, int64_t position,
                 const TokenHistory& history);

  /// The same from all of the target's logits, with what the processor makes of them: the drafter's
  /// it does not see. Error{kArgument} when that is NaN, infinity or no token.
  int32_t choose_target(const float* logits, int64_t n, int64_t position,
                        const TokenHistory& history);
  void set_processor(LogitsProcessor processor) { processor_ = std::move(processor); }

  /// Whether the choice is the largest logit, whatever they are: greedy, with nothing that changes
  /// logits first. Then choose_largest() gives what choose() would from all of them.
  bool takes_largest() const;
  /// id: of the largest logit, the smallest id of equal ones, or the first that is NaN or
  /// +infinity.
  int32_t choose_largest(int32_t id, float logit, int64_t position) const;

  /// Of a token among n logits (as for choose()), at the temperature (1 for greedy), under the
  /// constraint but before penalties and filters: how sure a drafter is of its choice. Within 2e-5,
  /// relatively.
  double probability(const float* logits, const int32_t* ids, int64_t n, int32_t token,
                     const TokenHistory& history);

  const SamplingParams& params() const { return params_; }

 private:
  struct Candidate {
    float logit;
    int32_t id;
    uint64_t weight;  // its probability over the largest one's, fixed point; only top-p fills it in
  };

  // The logits of one call, after what has been done to them.
  struct View {
    const float* logits;  // [n]
    const int32_t* ids;   // [n] or nullptr
    int64_t n;
    float max;

    int32_t id(int64_t i) const { return ids ? ids[i] : static_cast<int32_t>(i); }
    int64_t find(int32_t id) const;  // index of a token, -1 when absent
  };

  bool changes_logits() const;
  void restrict(View* view, const uint32_t* mask);
  void adjust(View* view, const TokenHistory& history);
  bool collect(const View& view, float lowest, size_t limit);
  void keep_top_k(const View& view);
  uint64_t weigh_candidates(const View& view);
  uint64_t nucleus_mass(uint64_t total) const;
  size_t nucleus_size(uint64_t mass);
  bool keep_small_nucleus(const View& view);
  Candidate end_of_nucleus(const View& view);
  int32_t sample_all(const View& view, const GumbelNoise& noise, double lowest,
                     const Candidate& last) const;
  int32_t sample_candidates(const GumbelNoise& noise, double lowest) const;
  double scaled(float logit) const {
    return static_cast<double>(logit) / static_cast<double>(params_.temperature);
  }

  SamplingParams params_;
  std::vector<int32_t> suppressed_;
  LogitsProcessor processor_;
  std::vector<float> processed_;  // [n] what it has made of the logits
  std::vector<Candidate> candidates_;
  std::vector<float> work_;        // [n] masked and adjusted logits
  std::vector<int32_t> work_ids_;  // [n] of the tokens that a mask leaves, if those are few
  std::vector<float> block_max_;   // [ceil(n / 256)] largest adjusted logit of each block
  std::vector<float> ranking_;     // block_max_, being partitioned
  std::vector<int64_t> touched_;   // blocks whose maximum is out of date
};

/// Gumbel(0, 1) noise in double, a function of the three keys alone and the same on every machine:
/// counter-based bits, and a logarithm of our own (no libm). Always within [kGumbelMin,
/// kGumbelMax].
double gumbel_noise(uint64_t seed, int64_t position, int32_t token);
extern const double kGumbelMin, kGumbelMax;

}  // namespace gemtp
