// Weights of a target or drafter: every tensor demanded by name and shape, laid out by the backend.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "gguf/reader.h"
#include "model/config.h"

namespace gemtp {

/// Feed-forward experts of one layer (MoE).
struct ExpertWeights {
  MatrixPtr router;         // [experts, hidden]
  Buffer router_scale;      // [hidden], hidden^-1/2 folded in by the forward
  Buffer per_expert_scale;  // [experts]
  ExpertMatrices experts;
  Buffer dense_post_norm;      // [hidden], of the dense branch
  Buffer pre_norm, post_norm;  // [hidden], of the expert branch
};

struct LayerWeights {
  Buffer attn_norm;                    // [hidden]
  MatrixPtr q;                         // [heads * head_dim, hidden]
  MatrixPtr k;                         // [kv_heads * head_dim, hidden]; null when K/V are shared
  MatrixPtr v;                         // as k; null with k present: V starts from the raw K
  MatrixPtr attn_output;               // [hidden, heads * head_dim]
  Buffer q_norm, k_norm;               // [head_dim]
  Buffer attn_post_norm;               // [hidden]
  Buffer ffn_norm, ffn_post_norm;      // [hidden]
  MatrixPtr ffn_gate, ffn_up;          // [ffn, hidden]
  MatrixPtr ffn_down;                  // [hidden, ffn]
  std::unique_ptr<ExpertWeights> moe;  // null: dense
  // Per-layer input embedding (PLE), with P = Config::per_layer.
  MatrixPtr ple_model_proj;  // this layer's rows of per_layer_model_proj: [P, hidden]
  MatrixPtr ple_gate;        // [P, hidden]
  MatrixPtr ple_proj;        // [hidden, P]
  Buffer ple_post_norm;      // [hidden]
  float output_scale = 1.0f;
};

struct Weights {
  std::shared_ptr<const GgufFile> file;  // keeps what the tables lie in open
  WeightSource token_embedding;          // [vocab, hidden], looked up by row, but not a drafter's
  WeightSource per_layer_embedding;      // [vocab, layers * P], looked up by row
  std::vector<AlignedBytes> tables;      // what they lie in, if it is memory
  Buffer ple_norm;                       // [P]
  std::vector<LayerWeights> layers;
  Buffer output_norm;               // [hidden]
  MatrixPtr head;                   // [vocab, hidden]; null with an ordered head
  std::vector<float> rope_factors;  // [head_dim / 2] of full layers: divides the frequency

  // Drafter only.
  MatrixPtr pre_projection;   // [hidden, 2 * backbone]
  MatrixPtr post_projection;  // [backbone, hidden]
  MatrixPtr centroids;        // [centroids, hidden]
  ClusterMatrices clusters;   // of an ordered head

  int64_t matrix_bytes = 0;  // laid-out size of all matrices
  int64_t source_bytes = 0;  // of the file, that were read for them
};

/// Of matrix_bytes, what a pass over `rows` rows reads: of the experts only those in use, which
/// rows choose independently of each other, of the clusters those of one row.
int64_t bytes_per_pass(const Weights& weights, const Config& config, int rows);
inline int64_t bytes_per_token(const Weights& weights, const Config& config) {
  return bytes_per_pass(weights, config, 1);
}

/// Loads everything `config` calls for. Error{kFile} names a tensor that is missing, misshapen, of
/// a type this build cannot compute with, or damaged, and a file that has changed meanwhile. `read`
/// is told of each piece of Weights::source_bytes, on the calling thread; what it throws ends the
/// loading. With `problems`, for a `storage` that only measures: they are added to, and a size that
/// the config has as 0 may be any.
Weights load_weights(std::shared_ptr<const GgufFile> file, const Config& config, Storage& storage,
                     const std::function<void(int64_t bytes)>& read = {},
                     Problems* problems = nullptr);

/// After load_weights() of a target: from here on only rows of its tables are looked up, one at a
/// time, in the file or in a copy of them in memory.
void settle_tables(Weights& weights, Storage& storage, bool in_memory);

}  // namespace gemtp
