// Architecture of a target or a drafter: read from a GGUF file's metadata or, if that does not say,
// from the shapes of its tensors, and checked.
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
  int kv_source = -1;  // layer whose K/V this layer attends to: itself, or an earlier one
};

struct Config {
  std::string arch;  // as spelled in the file
  bool drafter = false;
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t backbone = 0;   // drafter: the target's hidden size
  int64_t context = 0;    // context length the model was trained for
  int64_t window = 0;     // sliding layers: position p attends to k with p - k < window
  int64_t per_layer = 0;  // width of the per-layer input embeddings (PLE), 0: none
  int64_t experts = 0;    // 0: dense
  int64_t experts_used = 0;
  int64_t expert_ffn = 0;
  float eps = 1e-6f;
  float softcap = 0;       // softcap of the final logits, 0: none
  double rope_base = 1e6;  // full layers
  double rope_base_sliding = 1e4;
  std::vector<LayerConfig> layers;
  int kv_layers = 0;  // the first kv_layers layers own K/V, the rest share

  // Ordered head of a drafter: number of clusters, and how many of them a step multiplies; 0: plain
  // head.
  int64_t centroids = 0;
  int64_t centroid_top_k = 0;

  int n_layers() const { return static_cast<int>(layers.size()); }
  /// The first layers, which all rows of a pass run through; of the last layer that owns K/V rows
  /// without outputs need only the K/V, and of those behind it nothing.
  int early_layers() const { return kv_layers > 0 ? kv_layers - 1 : 0; }
  /// The last layer of the given type that owns K/V, or -1.
  int last_kv_layer(bool sliding) const;
  /// Number of logits that one draft step computes.
  int64_t candidates() const { return centroids ? vocab / centroids * centroid_top_k : vocab; }
  /// This config with a plain head instead of an ordered one.
  Config with_plain_head() const {
    Config plain = *this;
    plain.centroids = plain.centroid_top_k = 0;
    return plain;
  }
};

bool is_target_arch(const std::string& arch);
bool is_drafter_arch(const std::string& arch);

/// Throws Error{kFile}, naming file and key, for a missing, mistyped or absurd value, and
/// Error{kModel} for a valid file of another architecture. With `problems`, Error{kFile} is thrown
/// only for a file that does not name its architecture; other problems are added to `problems`, and
/// the affected values stay 0 (unknown). If one of the per-layer lists is missing, there are no
/// layers.
Config read_config(const GgufFile& file, Problems* problems = nullptr);

/// Returns the reasons why the drafter does not fit the target, as clauses.
Problems pair_problems(const Config& target, const Config& drafter);

}  // namespace gemtp
