#include "model/layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace gemtp {
namespace {

MatmulJob job(const MatrixPtr& w, Device<const float> x, int64_t m, Device<float> y) {
  return {w.get(), x, w->cols, m, y, w->rows};
}

GatedJob gated_job(const MatrixPtr& gate, const MatrixPtr& up, Device<const float> x, int64_t m,
                   Device<float> y) {
  return {gate.get(), up.get(), x, gate->cols, m, y, gate->rows};
}

const LayerConfig& layer_config(const Config& c, int i) { return c.layers[static_cast<size_t>(i)]; }

// Computes this layer's slice of (rms(W_model x hidden^-1/2) w + table[token] sqrt(P)) 2^-1/2 into
// s.ple_input; s.ple_gate holds W_model x on entry.
void finish_per_layer_input(const Config& c, const LayerPass& p, LayerScratch& s, Backend& b) {
  const int64_t n = c.per_layer, skip = p.m - p.keep;
  const float hidden_scale = 1.0f / std::sqrt(static_cast<float>(c.hidden));
  const float table_scale = std::sqrt(static_cast<float>(n));
  b.scale(s.ple_gate.get(), hidden_scale, p.keep, n, s.ple_gate.get());
  b.embed(p.weights->per_layer_embedding, p.rows, p.first + skip, p.keep, p.index * n, n,
          table_scale, s.ple_input.get());
  b.rms_norm_add(s.ple_gate.get(), p.weights->ple_norm.get(), p.keep, n, c.eps, s.ple_input.get(),
                 s.ple_input.get());
  b.scale(s.ple_input.get(), 0.70710678118654752f, p.keep, n, s.ple_input.get());
}

void attention_block(const Config& c, const LayerConfig& l, const LayerWeights& w,
                     const LayerPass& p, LayerScratch& s, Backend& b, Device<float> x) {
  const int64_t skip = p.m - p.keep;
  const Device<float> kept = x + skip * c.hidden;
  const RowsOfLayers& of_type = l.sliding ? p.rows.sliding : p.rows.full;
  b.rms_norm(x, w.attn_norm.get(), p.m, c.hidden, c.eps, s.normed.get());

  std::vector<MatmulJob> jobs;
  if (p.owns_kv) {
    jobs.push_back(job(w.k, s.normed.get(), p.m, s.k.get()));
    if (w.v) jobs.push_back(job(w.v, s.normed.get(), p.m, s.v.get()));
  }
  if (p.keep) {
    jobs.push_back(job(w.q, s.normed.get() + skip * c.hidden, p.keep, s.q.get()));
    if (c.per_layer)
      jobs.push_back(job(w.ple_model_proj, p.embedded + skip * c.hidden, p.keep, s.ple_gate.get()));
  }
  b.matmul(jobs);

  if (p.owns_kv) {
    b.store_kv(p.rows, of_type, p.kv_source, p.first, p.m,
               {s.k.get(), s.v.get(), !w.v, w.k_norm.get(), c.eps});
  }
  if (p.keep == 0) return;

  if (c.per_layer) finish_per_layer_input(c, p, s, b);
  b.norm_queries(of_type, p.first + skip, p.keep, l.heads, l.head_dim, w.q_norm.get(), c.eps,
                 s.q.get());
  b.attention(p.rows, of_type, p.kv_source, p.first + skip, p.keep, s.q.get(), l.heads,
              s.attended.get());
  b.matmul({job(w.attn_output, s.attended.get(), p.keep, s.branch.get())});
  b.rms_norm_add(s.branch.get(), w.attn_post_norm.get(), p.keep, c.hidden, c.eps, kept, kept);
}

// Computes the normed output of the expert branch of an MoE layer into s.branch; x: [m, hidden],
// the residual.
void expert_branch(const Config& c, const ExpertWeights& w, int64_t m, LayerScratch& s, Backend& b,
                   Device<const float> x) {
  const int64_t h = c.hidden;
  b.rms_norm(x, w.router_scale.get(), m, h, c.eps, s.normed.get());
  b.scale(s.normed.get(), 1.0f / std::sqrt(static_cast<float>(h)), m, h, s.normed.get());
  b.matmul({job(w.router, s.normed.get(), m, s.router_scores.get())});
  b.route(s.router_scores.get(), w.per_expert_scale.get(), m, *s.routing);
  b.rms_norm(x, w.pre_norm.get(), m, h, c.eps, s.normed.get());
  b.expert_feed_forward(w.experts, s.normed.get(), m, *s.routing, s.branch.get());
  b.rms_norm(s.branch.get(), w.post_norm.get(), m, h, c.eps, s.branch.get());
}

void feed_forward_block(const Config& c, const LayerWeights& w, int64_t m, LayerScratch& s,
                        Backend& b, Device<float> x) {
  b.rms_norm(x, w.ffn_norm.get(), m, c.hidden, c.eps, s.normed.get());
  b.gated_matmul({gated_job(w.ffn_gate, w.ffn_up, s.normed.get(), m, s.gated.get())});
  if (!w.moe) {
    b.matmul({job(w.ffn_down, s.gated.get(), m, s.branch.get())});
  } else {
    b.matmul({job(w.ffn_down, s.gated.get(), m, s.dense_out.get())});
    expert_branch(c, *w.moe, m, s, b, x);
    b.rms_norm_add(s.dense_out.get(), w.moe->dense_post_norm.get(), m, c.hidden, c.eps,
                   s.branch.get(), s.branch.get());
  }
  b.rms_norm_add(s.branch.get(), w.ffn_post_norm.get(), m, c.hidden, c.eps, x, x);
}

void per_layer_block(const Config& c, const LayerWeights& w, int64_t m, LayerScratch& s, Backend& b,
                     Device<float> x) {
  b.matmul({job(w.ple_gate, x, m, s.ple_gate.get())});
  b.gelu_mul(s.ple_gate.get(), s.ple_input.get(), m, c.per_layer, s.ple_gate.get());
  b.matmul({job(w.ple_proj, s.ple_gate.get(), m, s.branch.get())});
  b.rms_norm_add(s.branch.get(), w.ple_post_norm.get(), m, c.hidden, c.eps, x, x);
}

}  // namespace

LayerScratch::LayerScratch(const Config& c, Storage& b, int64_t rows) {
  int64_t heads = 0, kv = 0, ffn = 0;
  for (const LayerConfig& l : c.layers) {
    heads = std::max(heads, l.heads * l.head_dim);
    kv = std::max(kv, l.kv_heads * l.head_dim);
    ffn = std::max(ffn, l.ffn);
  }
  normed = b.alloc(rows * c.hidden);
  q = b.alloc(rows * heads);
  attended = b.alloc(rows * heads);
  branch = b.alloc(rows * c.hidden);
  gated = b.alloc(rows * ffn);
  if (c.kv_layers) {
    k = b.alloc(rows * kv);
    v = b.alloc(rows * kv);
  }
  if (c.per_layer) {
    ple_input = b.alloc(rows * c.per_layer);
    ple_gate = b.alloc(rows * c.per_layer);
  }
  if (c.experts) {
    router_scores = b.alloc(rows * c.experts);
    routing = b.make_routing({rows, c.experts, c.experts_used, c.hidden, c.expert_ffn});
    dense_out = b.alloc(rows * c.hidden);
  }
}

void layer_forward(const Config& c, const LayerWeights& w, const LayerPass& p, LayerScratch& s,
                   Backend& b, Device<float> x) {
  const LayerConfig& l = layer_config(c, p.index);
  attention_block(c, l, w, p, s, b, x);
  if (p.keep == 0) return;
  const Device<float> kept = x + (p.m - p.keep) * c.hidden;
  feed_forward_block(c, w, p.keep, s, b, kept);
  if (c.per_layer) per_layer_block(c, w, p.keep, s, b, kept);
  if (w.output_scale != 1.0f) b.scale(kept, w.output_scale, p.keep, c.hidden, kept);
}

}  // namespace gemtp
