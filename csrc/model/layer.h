// One transformer layer of Gemma 4, written once for targets and drafters.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace gemtp {

/// Buffers for one pass of at most `rows` rows through any layer of `config`.
class LayerScratch {
 public:
  LayerScratch(const Config& config, Storage& storage, int64_t rows);

  Buffer normed;     // [rows, hidden]
  Buffer q;          // [rows, heads * head_dim]
  Buffer k, v;       // [rows, kv_heads * head_dim]
  Buffer attended;   // [rows, heads * head_dim]
  Buffer branch;     // [rows, hidden]: what a branch adds to the residual
  Buffer gated;      // [rows, ffn]: gelu(gate) * up
  Buffer ple_input;  // [rows, P]
  Buffer ple_gate;   // [rows, P]
  // MoE.
  Buffer router_scores;  // [rows, experts]
  std::unique_ptr<Routing> routing;
  Buffer dense_out;  // [rows, hidden]
};

/// Some rows of a pass through one layer.
struct LayerPass {
  const PassRows& rows;
  int64_t first = 0;  // of the pass's rows, the first of these
  int64_t m = 0;      // rows
  int64_t keep = 0;   // trailing rows that go on past K/V; the others only leave their K/V
  // Per-layer inputs: scaled embeddings of the m rows; the weights' table may be empty (no PLE).
  Device<const float> embedded;  // [m, hidden]
  const Weights* weights = nullptr;
  int index = 0;         // of the layer
  int kv_source = 0;     // layer of the sequences' caches whose K/V it reads
  bool owns_kv = false;  // and writes
};

/// x: [m, hidden], in place; only the last `keep` rows are meaningful afterwards.
void layer_forward(const Config& config, const LayerWeights& w, const LayerPass& pass,
                   LayerScratch& s, Backend& backend, Device<float> x);

}  // namespace gemtp
