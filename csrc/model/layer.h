// One transformer layer of Gemma 4, written once for targets and drafters.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/per_layer_inputs.h"
#include "model/split.h"
#include "model/weights.h"

namespace gemtp {

/// Buffers for one pass of at most `rows` rows through any layer of `config` that lies on the
/// device. For those on the host, it is a storage of its own.
class LayerScratch {
 public:
  LayerScratch(const Config& config, Split<Storage> storages, int64_t rows);

  Buffer normed;     // [rows, hidden]: the input of the next products
  Buffer q;          // [rows, heads * head_dim]
  Buffer k, v;       // [rows, kv_heads * head_dim]
  Buffer attended;   // [rows, heads * head_dim]
  Buffer branch;     // [rows, hidden]: output of a branch, added to the residual
  Buffer gated;      // [rows, ffn]: gelu(gate) * up; at least PerLayerInputs::scratch_width() wide
  Buffer ple_gated;  // [rows, P]
  // MoE only.
  Buffer router_input;          // [rows, hidden]
  Mirror<float> expert_rows;    // [rows, hidden]: what experts compute with, and what they give
  Mirror<float> router_scores;  // [rows, experts]
  std::unique_ptr<Routing> routing, host_routing;  // of experts on the device, and on the host
  Buffer dense_out;                                // [rows, hidden]
};

/// A range of rows of a pass, on its way through one layer.
struct LayerPass {
  const PassRows& rows;
  int64_t first = 0;  // first row, within the rows of the pass
  int64_t m = 0;      // number of rows
  int64_t keep = 0;   // trailing rows that continue past K/V; the others only store K/V
  PerLayerInputs::Slice per_layer = {};  // of the kept rows; unused without PLE
  std::vector<NormResult> next = {};     // the norm that follows the layer, of the kept rows
  int index = 0;                         // index of the layer
  int kv_source = 0;        // layer of the sequences' caches whose K/V this layer reads
  bool owns_kv = false;     // this layer also writes K/V
  Backend* host = nullptr;  // the host's, if the experts lie there and the layer does not
};

/// Returns the norm that follows layer `index` (-1: the embeddings): that of the next layer goes to
/// s.normed, the output norm to `last`.
NormResult norm_after(int index, const Weights& weights, const LayerScratch& s, Device<float> last);

/// Runs the layer on x, [m, hidden], in place; only the last `keep` rows are meaningful afterwards.
/// s.normed holds the layer's attn_norm of x.
void layer_forward(const Config& config, const LayerWeights& w, const LayerPass& pass,
                   LayerScratch& s, Backend& backend, Device<float> x);

}  // namespace gemtp
