// The forward pass of an MTP drafter: a few layers, usually four, whose queries attend to the
// target's K/V.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/layer.h"
#include "model/rope.h"
#include "model/weights.h"

namespace gemtp {

/// Buffers for up to `steps` steps in one pass.
struct DrafterScratch {
  DrafterScratch(const Config& config, Storage& storage, int64_t steps);

  PassRows rows;  // one row
  LayerScratch layer;
  Buffer x;                // [hidden]
  Mirror<float> inputs;    // [steps + 1, 2 * backbone]: the token's embedding and h
  Mirror<int32_t> tokens;  // [steps + 1]: of the inputs
  // Outputs of the steps.
  Mirror<float> normed;        // [steps, hidden]
  Buffer centroid_scores;      // [centroids]
  Mirror<float> logits;        // [steps, candidates]
  Mirror<int32_t> candidates;  // [steps, candidates]; empty with a plain head
};

class Drafter {
 public:
  Drafter(const Config& config, const Weights& weights, const Config& target,
          const Weights& target_weights, Backend& backend);

  /// Begins a round at position p >= 1: in every step of the round, queries attend to the target's
  /// K/V at positions < p and have RoPE position p. kv must hold positions 0 .. p - 1. h:
  /// [backbone], the target's hidden state of position p - 1. `expected` steps are expected, each
  /// with the token of the largest logit before it: backends that can run them in one pass. This
  /// changes no result.
  void begin_round(const KvCache& kv, int64_t p, const float* h, int64_t expected = 1);

  /// Runs one step: x = W_pre concat(E_target[token] sqrt(backbone), h), the layers, the head. The
  /// next step uses h = W_post out of this one. Sets hidden(), logits() and candidates().
  void step(int32_t token);

  /// [backbone]: the h of the next step.
  const float* hidden() const {
    return scratch_.inputs.host() + (2 * step_ + 3) * config_.backbone;
  }

  /// [candidate_count()] logits of the step.
  const float* logits() const { return scratch_.logits.host() + step_ * candidate_count(); }
  /// Token ids of the logits, ascending; null if logit i belongs to token i (plain head).
  const int32_t* candidates() const {
    return scratch_.candidates ? scratch_.candidates.host() + step_ * candidate_count() : nullptr;
  }
  int64_t candidate_count() const { return config_.candidates(); }
  /// [hidden]: the input of the head.
  const float* features() const { return scratch_.normed.host() + step_ * config_.hidden; }

  const Config& config() const { return config_; }

 private:
  void run_steps(int64_t steps);
  void run_layers(int64_t step);
  void give_outputs(int64_t step);
  void continue_with_best(int64_t step);
  float embedding_scale() const;

  const Config& config_;
  const Weights& weights_;
  const Config& target_;
  const Weights& target_weights_;
  Backend& backend_;
  Rope rope_full_, rope_sliding_;
  const int64_t most_steps_;  // of one pass
  DrafterScratch scratch_;
  std::unique_ptr<Recordings> recordings_;
  int64_t expected_ = 0;  // further steps that begin_round() expects
  int64_t run_ = 0;       // steps of the last pass
  int64_t step_ = 0;      // the one of them that is the current step
};

}  // namespace gemtp
