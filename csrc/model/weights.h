// Weights of a target or drafter: every tensor is required by name and shape and laid out by the
// backend.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "gguf/reader.h"
#include "model/config.h"
#include "model/split.h"

namespace gemtp {

/// Feed-forward experts of one layer (MoE).
struct ExpertWeights {
  MatrixPtr router;         // [experts, hidden]
  Buffer router_scale;      // [hidden], hidden^-1/2 folded in by the forward
  Buffer per_expert_scale;  // [experts]
  ExpertMatrices experts;
  Buffer dense_post_norm;      // [hidden], dense branch
  Buffer pre_norm, post_norm;  // [hidden], expert branch
};

struct LayerWeights {
  Buffer attn_norm;                    // [hidden]
  MatrixPtr q;                         // [heads * head_dim, hidden]
  MatrixPtr k;                         // [kv_heads * head_dim, hidden]; null when K/V are shared
  MatrixPtr v;                         // like k; null with k present: V is computed from the raw K
  MatrixPtr attn_output;               // [hidden, heads * head_dim]
  Buffer q_norm, k_norm;               // [head_dim]
  Buffer attn_post_norm;               // [hidden]
  Buffer ffn_norm, ffn_post_norm;      // [hidden]
  MatrixPtr ffn_gate, ffn_up;          // [ffn, hidden]
  MatrixPtr ffn_down;                  // [hidden, ffn]
  std::unique_ptr<ExpertWeights> moe;  // null: dense
  // Per-layer input embedding (PLE), with P = Config::per_layer.
  MatrixPtr ple_gate;    // [P, hidden]
  MatrixPtr ple_proj;    // [hidden, P]
  Buffer ple_post_norm;  // [hidden]
  float output_scale = 1.0f;
};

struct Weights {
  std::shared_ptr<const GgufFile> file;  // keeps the tables' file open
  WeightSource token_embedding;          // [vocab, hidden], read by row; targets only
  WeightSource per_layer_embedding;      // [vocab, layers * P], read by row
  std::vector<AlignedBytes> tables;      // memory of the tables, if they are not read from the file
  // Rows of per_layer_model_proj, [layers * P, hidden], of the early layers (null if there are
  // none) and of the others: model/per_layer_inputs.h.
  MatrixPtr ple_early_projection, ple_late_projection;
  Buffer ple_norm;  // [P]
  std::vector<LayerWeights> layers;
  Buffer output_norm;               // [hidden]
  MatrixPtr head;                   // [vocab, hidden]; null with an ordered head
  std::vector<float> rope_factors;  // [head_dim / 2], full layers: frequency divisors

  // Drafter only.
  MatrixPtr pre_projection;   // [hidden, 2 * backbone]
  MatrixPtr post_projection;  // [backbone, hidden]
  MatrixPtr centroids;        // [centroids, hidden]
  ClusterMatrices clusters;   // only with an ordered head

  int64_t matrix_bytes = 0;  // laid-out size of all matrices
  int64_t source_bytes = 0;  // bytes of the file read for them
};

/// Expected bytes of the matrices that a pass over `rows` rows reads: of the experts only those in
/// use, assuming that rows choose independently, and of the clusters those of one row.
int64_t bytes_per_pass(const Weights& weights, const Config& config, int rows);
inline int64_t bytes_per_token(const Weights& weights, const Config& config) {
  return bytes_per_pass(weights, config, 1);
}

/// Loads every tensor that `config` requires. The per-layer inputs lie with the first layer. Throws
/// Error{kFile} naming a tensor that is missing, misshapen, damaged, or of a type this build cannot
/// compute with, or a file that has changed meanwhile. `read` is called on the calling thread for
/// each piece of Weights::source_bytes; an exception from it ends the loading. `problems` is for a
/// `storage` that only measures: problems are added to it instead of thrown, and a size that is 0
/// in the config matches any.
Weights load_weights(std::shared_ptr<const GgufFile> file, const Config& config,
                     Split<Storage> storages, const std::function<void(int64_t bytes)>& read = {},
                     Problems* problems = nullptr);

/// Called after load_weights() of a target: from here on only single rows of its tables are read,
/// from the file or from a copy in memory.
void settle_tables(Weights& weights, Storage& storage, bool in_memory);

}  // namespace gemtp
