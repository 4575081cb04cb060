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

/// Buffers for one step.
struct DrafterScratch {
  DrafterScratch(const Config& config, Storage& storage);

  PassRows rows;  // one row
  LayerScratch layer;
  Mirror<float> input;         // [2 * backbone]: the token's embedding and h
  Buffer x;                    // [hidden]
  Mirror<float> normed;        // [hidden]
  Buffer centroid_scores;      // [centroids]
  Mirror<float> logits;        // [candidates]
  Mirror<int32_t> candidates;  // [candidates]; empty with a plain head
};

class Drafter {
 public:
  Drafter(const Config& config, const Weights& weights, const Config& target,
          const Weights& target_weights, Backend& backend);

  /// Begins a round at position p >= 1: in every step of the round, queries attend to the target's
  /// K/V at positions < p and have RoPE position p. kv must hold positions 0 .. p - 1. h:
  /// [backbone], the target's hidden state of position p - 1.
  void begin_round(const KvCache& kv, int64_t p, const float* h);

  /// Runs one step: x = W_pre concat(E_target[token] sqrt(backbone), h), the layers, the head. The
  /// next step uses h = W_post out of this one. Sets hidden(), logits() and candidates().
  void step(int32_t token);

  /// [backbone]: the h of the next step.
  const float* hidden() const { return scratch_.input.host() + config_.backbone; }

  /// [candidate_count()] logits of the step.
  const float* logits() const { return scratch_.logits.host(); }
  /// Token ids of the logits, ascending; null if logit i belongs to token i (plain head).
  const int32_t* candidates() const { return scratch_.candidates.host(); }
  int64_t candidate_count() const { return config_.candidates(); }
  /// [hidden]: the input of the head.
  const float* features() const { return scratch_.normed.host(); }

  const Config& config() const { return config_; }

 private:
  void run_layers();
  void give_outputs();

  const Config& config_;
  const Weights& weights_;
  const Config& target_;
  const Weights& target_weights_;
  Backend& backend_;
  Rope rope_full_, rope_sliding_;
  DrafterScratch scratch_;
  std::unique_ptr<Recordings> recordings_;
};

}  // namespace gemtp
