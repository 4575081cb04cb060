// The forward pass of an MTP drafter: four (or so) layers of queries over the target's K/V.
#pragma once

#include <cstdint>
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

  LayerScratch layer;
  Buffer input;            // [2 * backbone]
  Buffer x;                // [hidden]
  Buffer normed;           // [hidden]
  Buffer centroid_scores;  // [centroids]
  Buffer cluster_logits;   // [candidates], cluster by cluster; null with a plain head
  Buffer logits;           // [candidates]
};

class Drafter {
 public:
  Drafter(const Config& config, const Weights& weights, const Config& target,
          const Weights& target_weights, Backend& backend);

  /// Begins a round at position p: queries attend to the target's K/V at positions < p and turn by
  /// position p in every step of the round. p >= 1, and kv holds positions 0 .. p - 1.
  void begin_round(const KvCache& kv, int64_t p);

  /// One step: x = W_pre concat(E_target[token] sqrt(backbone), h), the layers, the head.
  /// h: [backbone]; next_h: [backbone], may be h. Afterwards logits() and candidates() are set.
  void step(int32_t token, const float* h, float* next_h);

  /// [candidate_count()] logits of the step.
  const float* logits() const { return scratch_.logits.get(); }
  /// Their token ids, ascending; null when logit i belongs to token i (plain head).
  const int32_t* candidates() const { return candidates_.empty() ? nullptr : candidates_.data(); }
  int64_t candidate_count() const { return config_.candidates(); }
  /// [hidden]: what the head was multiplied with.
  const float* features() const { return scratch_.normed.get(); }

  const Config& config() const { return config_; }

 private:
  void ordered_head(const float* normed);
  void sort_candidates();

  const Config& config_;
  const Weights& weights_;
  const Config& target_;
  const Weights& target_weights_;
  Backend& backend_;
  DrafterScratch scratch_;
  Rope rope_full_, rope_sliding_;
  const KvCache* kv_ = nullptr;
  RopeRows angles_full_, angles_sliding_;
  AttentionSpan span_full_, span_sliding_;
  // Ordered head only.
  std::vector<int32_t> candidates_;     // [candidate_count]
  std::vector<int32_t> cluster_order_;  // [centroids]
  std::vector<uint64_t> present_;       // a bit for each token, all 0 between steps
  std::vector<int32_t> before_;         // candidates below the first token of each of its words
};

}  // namespace gemtp
