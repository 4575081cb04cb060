// choose(logits, params, seed, position, history) -> token: the only place where a token is chosen,
// for target and drafter alike. It is a pure function: its randomness is Gumbel noise keyed by
// (seed, position, token id), so a draft is verified by comparing two choices for equality.
//
// Order of operations on the model's logits:
//   suppressed ids -> repetition, presence and frequency penalties -> logit bias -> mask of a
//   constraint -> temperature -> top-k -> top-p -> min-p -> argmax of (logit / temperature + Gumbel
//   noise).
// Masked tokens do not exist for the steps that follow. (The code removes them first, since no
// earlier step looks at more than one token.) By the Gumbel-max trick the last step is an exact
// draw from the softmax of the remaining tokens (Gumbel 1954; Maddison et al. 2014). Temperature 0
// takes the argmax of the penalised, biased logits. Of equal logits the smaller id always wins.
//
// The result has the same bits on every machine: float and double operations run in one fixed
// order, without libm, and probabilities are summed as integers, which is exact in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "choose/sampling_params.h"
#include "choose/token_history.h"

namespace gemtp {

/// A caller's function that changes the target's logits [vocab] before all other steps. tokens: the
/// prompt and all tokens chosen since. It is called once for each token, in order, by the thread
/// that runs the pass, which waits for it. The text is still a function of its parameters, with the
/// processor as one of them. An exception from it ends the generation.
using LogitsProcessor =
    std::function<void(const std::vector<int32_t>& tokens, float* logits, int64_t vocab)>;

class GumbelNoise;  // the noise of one (seed, position)

class Chooser {
 public:
  /// `suppressed`: ids that are never chosen, besides those of `params`. Throws Error{kArgument}
  /// for invalid params; vocab_size is at most 2^21.
  Chooser(SamplingParams params, const std::vector<int32_t>& suppressed, int32_t vocab_size);

  /// Chooses the token for `position`, its absolute index in the sequence.
  /// logits: [n] f32, read only. ids: [n] token ids, strictly ascending, or nullptr if logit i
  /// belongs to token i. Throws Error{kModel} if a logit is NaN or +infinity or none is finite
  /// ("the weights are damaged"), and Error{kArgument} if suppression, bias and constraint leave no
  /// token. Not thread-safe, because it keeps scratch memory between calls.
  int32_t choose(const float* logits, const int32_t* ids, int64_t n, int64_t position,
                 const TokenHistory& history);

  /// Chooses from all of the target's logits, after the logits processor has changed them. (The
  /// processor does not see the drafter's logits.) Throws Error{kArgument} if the processor returns
  /// NaN or infinity, or leaves no token.
  int32_t choose_target(const float* logits, int64_t n, int64_t position,
                        const TokenHistory& history);
  void set_processor(LogitsProcessor processor) { processor_ = std::move(processor); }

  /// Whether the choice is always the largest logit: greedy, and nothing changes the logits. Then
  /// choose_largest() gives the same token as choose().
  bool takes_largest() const;
  /// id: token id of the largest logit (the smallest id if several are equal), or of the first that
  /// is NaN or +infinity.
  int32_t choose_largest(int32_t id, float logit, int64_t position) const;

  /// Probability of a token among n logits (as for choose()) at the temperature (1 for greedy),
  /// with the constraint but without penalties and filters. It measures how sure a drafter is of
  /// its choice. Relative error below 2e-5.
  double probability(const float* logits, const int32_t* ids, int64_t n, int32_t token,
                     const TokenHistory& history);

  const SamplingParams& params() const { return params_; }

 private:
  struct Candidate {
    float logit;
    int32_t id;
    uint64_t weight;  // probability over the largest, fixed point; set only for top-p
  };

  // The logits of one call, after the steps so far.
  struct View {
    const float* logits;  // [n]
    const int32_t* ids;   // [n] or nullptr
    int64_t n;
    float max;

    int32_t id(int64_t i) const { return ids ? ids[i] : static_cast<int32_t>(i); }
    int64_t find(int32_t id) const;  // index of a token, -1 if absent
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
  std::vector<float> processed_;  // [n] output of the processor
  std::vector<Candidate> candidates_;
  std::vector<float> work_;        // [n] masked and adjusted logits
  std::vector<int32_t> work_ids_;  // ids of the tokens that a mask leaves, if they are few
  std::vector<float> block_max_;   // [ceil(n / 256)] largest adjusted logit of each block
  std::vector<float> ranking_;     // copy of block_max_, to be partitioned
  std::vector<int64_t> touched_;   // blocks whose maximum is out of date
};

/// Gumbel(0, 1) noise in double, a function of only the three keys and the same on every machine:
/// counter-based bits, and our own logarithm instead of libm's. Always within [kGumbelMin,
/// kGumbelMax].
double gumbel_noise(uint64_t seed, int64_t position, int32_t token);
extern const double kGumbelMin, kGumbelMax;

}  // namespace gemtp
