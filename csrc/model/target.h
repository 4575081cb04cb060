// The forward pass of a target model.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/layer.h"
#include "model/per_layer_inputs.h"
#include "model/rope.h"
#include "model/weights.h"

namespace gemtp {

/// What the head computes for each wanted row.
enum class HeadOutput { kNone, kBest, kLogits };

/// One sequence's part of a pass: ids[0 .. m) at positions kv->length() .. kv->length() + m - 1.
/// Outputs are computed for the last `want` rows.
struct SequenceRows {
  KvCache* kv = nullptr;
  const int32_t* ids = nullptr;  // [m]
  int64_t m = 0, want = 0;
  HeadOutput head = HeadOutput::kNone;
};

/// The target's outputs for the wanted rows.
struct TargetOutputs {
  Mirror<float> hidden;    // [rows, hidden]: the state after the final norm
  Mirror<BestLogit> best;  // [rows]: the best logit, unless HeadOutput::kNone
  Mirror<float> logits;    // [rows, vocab], softcapped, for HeadOutput::kLogits
};

/// Buffers for one pass of at most `rows` rows.
struct TargetScratch {
  TargetScratch(const Config& config, Split<Storage> storages, int64_t rows);

  PassRows rows;
  PerLayerInputs per_layer;
  LayerScratch layer;
  std::unique_ptr<LayerScratch> host_layer;  // for layers on the host
  Mirror<float> x;  // [rows, hidden]: scaled embeddings, then the residual stream
};

class Target {
 public:
  /// max_rows: the most rows of one pass.
  Target(const Config& config, const Weights& weights, Split<Backend> backends, int64_t max_rows);

  /// Runs the rows of one or more sequences together and appends to the K/V of each; the results of
  /// a sequence do not depend on the others. Rows without outputs skip every layer that shares K/V,
  /// and compute only the K/V of the last layer that owns K/V.
  /// Outputs of the wanted rows go to the first rows of `outputs`, in the order of the sequences.
  /// Preconditions (checked by the caller): for each sequence 1 <= m, 0 <= want <= m, valid ids and
  /// a distinct kv; at most max_rows rows in total.
  /// Throws Error{kCancelled} if the backend's pass has been stopped; then no sequence has become
  /// longer.
  void forward(std::span<const SequenceRows> sequences, const TargetOutputs& outputs);
  void forward(const SequenceRows& sequence, const TargetOutputs& outputs) {
    forward({&sequence, 1}, outputs);
  }

  const Config& config() const { return config_; }
  int64_t max_rows() const { return max_rows_; }

 private:
  void lay_out(std::span<const SequenceRows> sequences, const TargetOutputs& outputs);
  void add_row(const SequenceRows& s, int64_t i);
  void embed();
  void run_on_host(std::span<const SequenceRows> sequences);
  void run_on_device(const TargetOutputs& outputs);
  void run_layers(Backend& backend, LayerScratch& scratch, int first, int end,
                  Device<float> hidden);
  int64_t rows_before(int layer) const;
  void give_outputs(std::span<const SequenceRows> sequences, const TargetOutputs& outputs);

  const Config& config_;
  const Weights& weights_;
  const Split<Backend> backends_;
  Backend& backend_;  // the device's
  int64_t max_rows_;
  Rope rope_full_, rope_sliding_;
  // Its rows: first those without outputs, then the wanted ones, both in the order of the
  // sequences. Rows that skip the remaining layers are thus always the leading ones.
  TargetScratch scratch_;
  int64_t wanted_ = 0;
  std::unique_ptr<Recordings> recordings_;
  std::vector<int64_t> shape_;         // shape of the pass
  std::vector<Device<float>> logits_;  // [wanted]
};

/// Makes rows for passes through the config's layers.
PassRows make_rows(const Config& config, Storage& storage, int64_t rows);
/// Makes the RoPE of the config's full or sliding layers.
Rope make_rope(const Config& config, const Weights& weights, bool sliding);

}  // namespace gemtp
