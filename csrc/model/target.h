// The forward pass of a target model.
#pragma once

#include <cstdint>
#include <span>
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

/// One sequence's part of a pass: ids[0 .. m) at positions kv->length() .. kv->length() + m - 1,
/// and where the outputs of its last `want` rows go.
struct SequenceRows {
  KvCache* kv = nullptr;
  const int32_t* ids = nullptr;  // [m]
  int64_t m = 0, want = 0;
  float* hidden = nullptr;    // [want, hidden]: the state after the final norm
  BestLogit* best = nullptr;  // [want]: the best logit; null: no head
  float* logits = nullptr;    // [want, vocab], softcapped; null: not kept. Needs `best`
};

/// Buffers for one pass of at most `rows` rows.
struct TargetScratch {
  TargetScratch(const Config& config, Storage& storage, int64_t rows);

  LayerScratch layer;
  Buffer embedded;  // [rows, hidden] scaled embeddings, kept for the per-layer inputs
  Buffer x;         // [rows, hidden] the residual stream
  Buffer normed;    // [rows, hidden] of the rows that are wanted
};

class Target {
 public:
  /// max_rows: the most rows one pass takes.
  Target(const Config& config, const Weights& weights, Backend& backend, int64_t max_rows);

  /// Runs the rows of one or more sequences together and appends to the K/V of each; what a
  /// sequence gets does not depend on the others. Rows that nobody wants skip every layer that
  /// shares K/V, and all but the K/V of the last layer that owns them.
  /// Preconditions (checked by the sequence): of each 1 <= m, 0 <= want <= m, ids valid, kv another
  /// one; max_rows in all.
  /// Error{kCancelled} when the backend's pass has been stopped: no sequence is any longer then.
  void forward(std::span<const SequenceRows> sequences);
  void forward(const SequenceRows& sequence) { forward({&sequence, 1}); }

  const Config& config() const { return config_; }
  int64_t max_rows() const { return max_rows_; }

 private:
  void lay_out(std::span<const SequenceRows> sequences);
  std::span<const RowRange> ranges_of_layer(std::span<const SequenceRows> sequences, int layer,
                                            int64_t skip);
  void run_layers(std::span<const SequenceRows> sequences);
  void give_outputs(std::span<const SequenceRows> sequences);

  const Config& config_;
  const Weights& weights_;
  Backend& backend_;
  int64_t max_rows_;
  TargetScratch scratch_;
  Rope rope_full_, rope_sliding_;
  // Of the pass. Rows that nobody wants come first, then all others, each part in the order of the
  // sequences: so those that leave early are always the leading ones.
  struct Range {
    size_t sequence;
    int64_t row, m, first;  // as in RowRange
  };
  std::vector<Range> ranges_;
  std::vector<RowRange> layer_ranges_;
  std::vector<int32_t> ids_;                   // [rows]
  std::vector<int64_t> positions_;             // [rows]
  std::vector<AttentionSpan> full_, sliding_;  // [rows]
  int64_t wanted_ = 0;
  std::vector<BestLogit> best_;  // [wanted]
  std::vector<float*> logits_;   // [wanted]
};

/// RoPE of the config's full or sliding layers.
Rope make_rope(const Config& config, const Weights& weights, bool sliding);

}  // namespace gemtp
