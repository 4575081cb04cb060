// Architecture of a target or a drafter, read from a GGUF file's metadata, and where that does not
// say, from the shapes of its tensors, and checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/problems.h"
#include "gguf/reader.h"

namespace gemtp {

struct LayerConfig {
  bool sliding = false;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn = 0;     // width of the (dense) feed-forward
  int kv_source = -1;  // layer whose K/V this one attends to: itself, or an earlier one when shared
};

struct Config {
  std::string arch;  // as spelled in the file
  bool drafter = false;
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t backbone = 0;   // drafter: the target's hidden size
  int64_t context = 0;    // context length the model was trained for
  int64_t window = 0;     // sliding layers: position p sees k with p - k < window
  int64_t per_layer = 0;  // width of the per-layer input embeddings (PLE), 0: none
  int64_t experts = 0;    // 0: dense
  int64_t experts_used = 0;
  int64_t expert_ffn = 0;
  float eps = 1e-6f;
  float softcap = 0;       // of the final logits, 0: none
  double rope_base = 1e6;  // full layers
  double rope_base_sliding = 1e4;
  std::vector<LayerConfig> layers;
  int kv_layers = 0;  // the first kv_layers layers own K/V, the rest share

  // A drafter's ordered head: clusters, and how many of them a step multiplies; 0: a plain head.
  int64_t centroids = 0;
  int64_t centroid_top_k = 0;

  int n_layers() const { return static_cast<int>(layers.size()); }
  /// The last layer of that type that owns K/V, or -1.
  int last_kv_layer(bool sliding) const;
  /// A drafter's: logits of a step.
  int64_t candidates() const { return centroids ? vocab / centroids * centroid_top_k : vocab; }
  /// The same with a plain head.
  Config with_plain_head() const {
    Config plain = *this;
    plain.centroids = plain.centroid_top_k = 0;
    return plain;
  }
};

bool is_target_arch(const std::string& arch);
bool is_drafter_arch(const std::string& arch);

/// Error{kFile} for a missing, mistyped or absurd value, naming file and key; Error{kModel} for a
/// sound file of another architecture. With `problems`, the first is thrown only for a file that
/// does not say its architecture; the others are added to them, and what they are about stays 0:
/// unknown. Without one of the lists of layers there are no layers.
Config read_config(const GgufFile& file, Problems* problems = nullptr);

/// How the drafter does not fit the target, in clauses.
Problems pair_problems(const Config& target, const Config& drafter);

}  // namespace gemtp
