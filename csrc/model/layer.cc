#include "model/layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/numeric.h"

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

// (rms(W_model x hidden^-1/2) w + table[token] sqrt(P)) 2^-1/2, this layer's slice, into
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
    if (!w.v) b.copy(s.k.get(), p.m * l.kv_heads * l.head_dim, s.v.get());
    b.head_norm_rope(s.k.get(), w.k_norm.get(), p.m, l.kv_heads, l.head_dim, c.eps, &of_type.angles,
                     p.first);
    b.head_norm_rope(s.v.get(), {}, p.m, l.kv_heads, l.head_dim, c.eps, nullptr, p.first);
    b.store_kv(p.rows, p.kv_source, p.first, p.m, s.k.get(), s.v.get());
  }
  if (p.keep == 0) return;

  if (c.per_layer) finish_per_layer_input(c, p, s, b);
  b.head_norm_rope(s.q.get(), w.q_norm.get(), p.keep, l.heads, l.head_dim, c.eps, &of_type.angles,
                   p.first + skip);
  b.attention(p.rows, of_type.spans, p.kv_source, p.first + skip, p.keep, s.q.get(), l.heads,
              s.attended.get());
  b.matmul({job(w.attn_output, s.attended.get(), p.keep, s.branch.get())});
  b.rms_norm_add(s.branch.get(), w.attn_post_norm.get(), p.keep, c.hidden, c.eps, kept, kept);
}

// Scores [experts] of one row -> the experts used, best first (of equal ones the first), and their
// weights: softmax over all, the top k renormalised, times the per-expert scale.
void route(const Config& c, const ExpertWeights& w, const float* scores, int32_t* chosen,
           float* weight) {
  int64_t n = 0;
  for (int32_t e = 0; e < c.experts; ++e) {
    if (n == c.experts_used && !(scores[e] > scores[chosen[n - 1]])) continue;
    int64_t at = n < c.experts_used ? n++ : n - 1;
    for (; at > 0 && scores[e] > scores[chosen[at - 1]]; --at) chosen[at] = chosen[at - 1];
    chosen[at] = e;
  }
  // The softmax's own denominator cancels in the renormalisation.
  const auto odds = [&](int64_t i) {
    return portable_exp(static_cast<double>(scores[chosen[i]]) - scores[chosen[0]]);
  };
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += odds(i);
  for (int64_t i = 0; i < n; ++i)
    weight[i] = static_cast<float>(odds(i) / total) * w.per_expert_scale[chosen[i]];
}

// Groups the slots of m rows by expert, so that each expert's weights are read once.
void group_by_expert(const Config& c, int64_t m, LayerScratch& s) {
  const int64_t slots = m * c.experts_used;
  s.first_place.assign(static_cast<size_t>(c.experts) + 1, 0);
  for (int64_t i = 0; i < slots; ++i)
    ++s.first_place[static_cast<size_t>(s.slot_expert[static_cast<size_t>(i)]) + 1];
  std::partial_sum(s.first_place.begin(), s.first_place.end(), s.first_place.begin());
  for (int64_t i = 0; i < slots; ++i) {
    const auto slot = static_cast<size_t>(i);
    const int32_t place = s.first_place[static_cast<size_t>(s.slot_expert[slot])]++;
    s.slot_place[slot] = place;
    s.place_row[static_cast<size_t>(place)] = static_cast<int32_t>(i / c.experts_used);
  }
  // Every entry has moved on to the next expert's place.
  std::rotate(s.first_place.begin(), s.first_place.end() - 1, s.first_place.end());
  s.first_place[0] = 0;
}

// The expert branch of an MoE layer: x [m, hidden] (the residual) -> s.branch, normed.
void expert_branch(const Config& c, const ExpertWeights& w, int64_t m, LayerScratch& s, Backend& b,
                   Device<const float> x) {
  const int64_t h = c.hidden, f = c.expert_ffn, used = c.experts_used;
  b.rms_norm(x, w.router_scale.get(), m, h, c.eps, s.normed.get());
  b.scale(s.normed.get(), 1.0f / std::sqrt(static_cast<float>(h)), m, h, s.normed.get());
  b.matmul({job(w.router, s.normed.get(), m, s.router_scores.device())});
  b.fetch(s.router_scores, 0, m * c.experts);
  b.wait();
  for (int64_t i = 0; i < m; ++i)
    route(c, w, s.router_scores.host() + i * c.experts, s.slot_expert.data() + i * used,
          s.slot_weight.data() + i * used);
  group_by_expert(c, m, s);

  b.rms_norm(x, w.pre_norm.get(), m, h, c.eps, s.normed.get());
  s.gated_jobs.clear();
  s.out_jobs.clear();
  s.in_row.clear();
  for (size_t e = 0; e < static_cast<size_t>(c.experts); ++e) {
    const int64_t place = s.first_place[e], n = s.first_place[e + 1] - place;
    if (n == 0) continue;
    const int32_t* row = s.place_row.data() + place;
    Device<const float> in = s.normed.get() + *row * h;  // where a single row can stay
    if (n > 1) {
      in = s.expert_in.get() + static_cast<int64_t>(s.in_row.size()) * h;
      s.in_row.insert(s.in_row.end(), row, row + n);
    }
    const Device<float> gated = s.expert_gated.get() + place * f;
    s.gated_jobs.push_back(gated_job(w.gate[e], w.up[e], in, n, gated));
    s.out_jobs.push_back(job(w.down[e], gated, n, s.expert_out.get() + place * h));
  }
  b.gather(s.normed.get(), s.in_row.data(), static_cast<int64_t>(s.in_row.size()), h,
           s.expert_in.get());
  b.gated_matmul(s.gated_jobs);
  b.matmul(s.out_jobs);
  b.weighted_sum(s.expert_out.get(), s.slot_place.data(), s.slot_weight.data(), m, used, h,
                 s.branch.get());
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
    const int64_t slots = rows * c.experts_used;
    router_scores = b.mirror<float>(rows * c.experts);
    expert_in = b.alloc(slots * c.hidden);
    expert_gated = b.alloc(slots * c.expert_ffn);
    expert_out = b.alloc(slots * c.hidden);
    dense_out = b.alloc(rows * c.hidden);
    slot_weight.resize(static_cast<size_t>(slots));
    slot_expert.resize(static_cast<size_t>(slots));
    slot_place.resize(static_cast<size_t>(slots));
    place_row.resize(static_cast<size_t>(slots));
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
