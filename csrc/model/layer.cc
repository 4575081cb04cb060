#include "model/layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace gemtp {
namespace {

MatmulJob job(const MatrixPtr& w, Device<const float> x, int64_t m, Device<float> y) {
  return {w.get(), x, w->cols, m, y, w->rows};
}

const LayerConfig& layer_config(const Config& c, int i) { return c.layers[static_cast<size_t>(i)]; }

// Computes s.branch, of the kept rows, from s.normed.
void attention(const Config& c, const LayerConfig& l, const LayerWeights& w, const LayerPass& p,
               LayerScratch& s, Backend& b) {
  const int64_t skip = p.m - p.keep;
  const RowsOfLayers& of_type = l.sliding ? p.rows.sliding : p.rows.full;
  NewHeads heads;
  heads.heads = l.heads;
  heads.d = l.head_dim;
  heads.q = s.q.get();
  heads.q_weight = w.q_norm.get();
  heads.eps = c.eps;
  std::vector<MatmulJob> jobs;
  if (p.keep) jobs.push_back(job(w.q, s.normed.get() + skip * c.hidden, p.keep, heads.q));
  if (p.owns_kv) {
    heads.k = s.k.get();
    heads.v = s.v.get();
    heads.v_is_k = !w.v;
    heads.k_weight = w.k_norm.get();
    jobs.push_back(job(w.k, s.normed.get(), p.m, heads.k));
    if (w.v) jobs.push_back(job(w.v, s.normed.get(), p.m, heads.v));
  }
  b.matmul(jobs);
  b.finish_heads(p.rows, of_type, p.kv_source, p.first, p.m, p.keep, heads);
  if (p.keep == 0) return;
  b.attention(p.rows, of_type, p.kv_source, p.first + skip, p.keep, s.q.get(), l.heads,
              s.attended.get());
  b.matmul({job(w.attn_output, s.attended.get(), p.keep, s.branch.get())});
}

// Computes y, [m, hidden], from s.normed.
void dense_feed_forward(const LayerWeights& w, int64_t m, LayerScratch& s, Backend& b,
                        Device<float> y) {
  b.gated_matmul({{w.ffn_gate.get(), w.ffn_up.get(), s.normed.get(), w.ffn_gate->cols, m,
                   s.gated.get(), w.ffn_gate->rows}});
  b.matmul({job(w.ffn_down, s.gated.get(), m, y)});
}

// Runs the experts that the scores choose, on the backend where they lie.
void mix_experts(const ExpertWeights& w, int64_t m, const LayerScratch& s, Routing& routing,
                 Backend& b) {
  b.route(b.at(s.router_scores), w.per_expert_scale.get(), m, routing);
  b.expert_feed_forward(w.experts, b.at(s.expert_rows), m, routing, b.at(s.expert_rows));
}

// Adds the norm of the experts' outputs to that of the dense branch, in s.branch.
void expert_feed_forward(const Config& c, const ExpertWeights& w, const LayerPass& p,
                         LayerScratch& s, Backend& b) {
  const int64_t m = p.keep;
  b.matmul({job(w.router, s.router_input.get(), m, s.router_scores.device())});
  if (p.host) {
    b.fetch(s.router_scores, 0, m * c.experts);
    b.fetch(s.expert_rows, 0, m * c.hidden);
    b.wait();
    mix_experts(w, m, s, *s.host_routing, *p.host);
    b.send(s.expert_rows, 0, m * c.hidden);
  } else {
    mix_experts(w, m, s, *s.routing, b);
  }
  b.norm(s.expert_rows.device(), m, c.hidden, c.eps, {{{w.post_norm.get(), s.branch.get()}}});
  b.add_branch({s.dense_out.get(), w.dense_post_norm.get()}, m, c.hidden, c.eps, s.branch.get(),
               {});
}

// The norms of the residual with which the feed-forward begins.
std::vector<NormResult> feed_forward_norms(const Config& c, const LayerWeights& w,
                                           LayerScratch& s) {
  std::vector<NormResult> out{{w.ffn_norm.get(), s.normed.get()}};
  if (w.moe) {
    out.push_back({w.moe->router_scale.get(), s.router_input.get(),
                   1.0f / std::sqrt(static_cast<float>(c.hidden))});
    out.push_back({w.moe->pre_norm.get(), s.expert_rows.device()});
  }
  return out;
}

}  // namespace

LayerScratch::LayerScratch(const Config& c, Split<Storage> storages, int64_t rows) {
  Storage& b = storages.device;
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
  gated = b.alloc(rows * std::max(ffn, PerLayerInputs::scratch_width(c)));
  if (c.kv_layers) {
    k = b.alloc(rows * kv);
    v = b.alloc(rows * kv);
  }
  if (c.per_layer) {
    ple_gated = b.alloc(rows * c.per_layer);
  }
  if (c.experts) {
    router_input = b.alloc(rows * c.hidden);
    expert_rows = b.mirror<float>(rows * c.hidden);
    router_scores = b.mirror<float>(rows * c.experts);
    const RoutingSizes sizes{rows, c.experts, c.experts_used, c.hidden, c.expert_ffn};
    if (storages.placement.host_experts < c.n_layers()) routing = b.make_routing(sizes);
    if (storages.placement.splits_layers()) host_routing = storages.host.make_routing(sizes);
    dense_out = b.alloc(rows * c.hidden);
  }
}

NormResult norm_after(int index, const Weights& weights, const LayerScratch& s,
                      Device<float> last) {
  const auto next = static_cast<size_t>(index + 1);
  if (next == weights.layers.size()) return {weights.output_norm.get(), last};
  return {weights.layers[next].attn_norm.get(), s.normed.get()};
}

void layer_forward(const Config& c, const LayerWeights& w, const LayerPass& p, LayerScratch& s,
                   Backend& b, Device<float> x) {
  const int64_t m = p.keep;
  const Device<float> kept = x + (p.m - m) * c.hidden;
  const auto add = [&](const Buffer& weight, float after, const std::vector<NormResult>& norms) {
    b.add_branch({s.branch.get(), weight.get(), 1.0f, after}, m, c.hidden, c.eps, kept, norms);
  };

  attention(c, layer_config(c, p.index), w, p, s, b);
  if (m == 0) return;
  add(w.attn_post_norm, 1.0f, feed_forward_norms(c, w, s));
  if (w.moe) {
    dense_feed_forward(w, m, s, b, s.dense_out.get());
    expert_feed_forward(c, *w.moe, p, s, b);
  } else {
    dense_feed_forward(w, m, s, b, s.branch.get());
  }
  if (!c.per_layer) {
    add(w.ffn_post_norm, w.output_scale, p.next);
    return;
  }
  add(w.ffn_post_norm, 1.0f, {});
  b.gated_matmul({{w.ple_gate.get(), nullptr, kept, c.hidden, m, s.ple_gated.get(), c.per_layer,
                   p.per_layer.first, p.per_layer.stride}});
  b.matmul({job(w.ple_proj, s.ple_gated.get(), m, s.branch.get())});
  add(w.ple_post_norm, w.output_scale, p.next);
}

}  // namespace gemtp
