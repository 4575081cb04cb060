// The forward pass of a target model.
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

/// What the head gives of each row that is wanted.
enum class HeadOutput { kNone, kBest, kLogits };

class Target {
 public:
  /// max_rows: the most rows one pass takes.
  Target(const Config& config, const Weights& weights, Backend& backend, int64_t max_rows);

  /// Runs ids[0 .. m) at positions kv.length() .. kv.length() + m - 1 and appends their K/V.
  /// Of the last `want` rows it gives the hidden state after the final norm (hidden: [want,
  /// hidden]), the best logit (best: [want], or null: no head) and all logits ([want, vocab],
  /// softcapped, or null). Rows that nobody wants skip every layer that shares K/V, and all but the
  /// K/V of the last layer that owns them.
  /// Preconditions (checked by the session): 1 <= m <= max_rows, 0 <= want <= m, ids valid.
  void forward(KvCache& kv, const int32_t* ids, int64_t m, int64_t want, float* hidden,
               BestLogit* best, float* logits);

  const Config& config() const { return config_; }
  int64_t max_rows() const { return max_rows_; }

 private:
  const Config& config_;
  const Weights& weights_;
  Backend& backend_;
  int64_t max_rows_;
  LayerScratch scratch_;
  Rope rope_full_, rope_sliding_;
  Buffer embedded_;  // [max_rows, hidden] scaled embeddings, kept for the per-layer inputs
  Buffer x_;         // [max_rows, hidden] the residual stream
};

/// RoPE of the config's full or sliding layers.
Rope make_rope(const Config& config, const Weights& weights, bool sliding);

}  // namespace gemtp
