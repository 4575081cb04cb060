#include "model/drafter.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/target.h"

namespace gemtp {

DrafterScratch::DrafterScratch(const Config& config, Storage& storage)
    : rows(make_rows(config, storage, 1)),
      layer(config, storage, 1),
      input(storage.mirror<float>(2 * config.backbone)),
      x(storage.alloc(config.hidden)),
      normed(storage.mirror<float>(config.hidden)),
      centroid_scores(storage.alloc(config.centroids)),
      logits(storage.mirror<float>(config.candidates())) {
  if (config.centroids) candidates = storage.mirror<int32_t>(config.candidates());
}

Drafter::Drafter(const Config& config, const Weights& weights, const Config& target,
                 const Weights& target_weights, Backend& backend)
    : config_(config),
      weights_(weights),
      target_(target),
      target_weights_(target_weights),
      backend_(backend),
      rope_full_(make_rope(config, weights, false)),
      rope_sliding_(make_rope(config, weights, true)),
      scratch_(config, backend),
      recordings_(backend.make_recordings()) {}

void Drafter::begin_round(const KvCache& kv, int64_t p, const float* h) {
  GEMTP_ASSERT(p >= 1 && kv.length() >= p);
  PassRows& rows = scratch_.rows;
  rows.clear();
  rows.kv = {kv.layers()};
  rows.begin_run(0);
  rows.add_row();
  const auto last = static_cast<int32_t>(p - 1);
  rows.positions[0] = last + 1;
  rows.full.spans[0] = {0, last};
  rows.sliding.spans[0] = {static_cast<int32_t>(std::max<int64_t>(0, p - config_.window + 1)),
                           last};
  rope_full_.write_angles(rows.positions.host(), 1, rows.full.angles);
  rope_sliding_.write_angles(rows.positions.host(), 1, rows.sliding.angles);
  std::copy_n(h, config_.backbone, scratch_.input.host() + config_.backbone);
}

void Drafter::step(int32_t token) {
  PassRows& rows = scratch_.rows;
  GEMTP_ASSERT(rows.count == 1);
  rows.ids[0] = token;
  backend_.embed(target_weights_.token_embedding, rows, 0, 1, 0, config_.backbone,
                 std::sqrt(static_cast<float>(config_.backbone)), scratch_.input.host());
  backend_.run(*recordings_, rows, {}, [this] {
    backend_.send(scratch_.rows);
    backend_.send(scratch_.input, 0, 2 * config_.backbone);
    run_layers();
    give_outputs();
  });
  backend_.wait();
}

void Drafter::run_layers() {
  const Config& c = config_;
  const Device<float> x = scratch_.x.get();
  backend_.matmul(
      {{weights_.pre_projection.get(), scratch_.input.device(), 2 * c.backbone, 1, x, c.hidden}});
  backend_.norm(x, 1, c.hidden, c.eps,
                {{{weights_.layers[0].attn_norm.get(), scratch_.layer.normed.get()}}});
  for (int i = 0; i < c.n_layers(); ++i) {
    const auto at = static_cast<size_t>(i);
    LayerPass pass{scratch_.rows, 0, 1, 1};
    pass.index = i;
    pass.kv_source = target_.last_kv_layer(c.layers[at].sliding);
    if (i + 1 < c.n_layers())
      pass.next = {weights_.layers[at + 1].attn_norm.get(), scratch_.layer.normed.get()};
    else
      pass.next = {weights_.output_norm.get(), scratch_.normed.device()};
    layer_forward(c, weights_.layers[at], pass, scratch_.layer, backend_, x);
  }
}

void Drafter::give_outputs() {
  const Config& c = config_;
  const Device<float> normed = scratch_.normed.device(), h = scratch_.input.device() + c.backbone;
  std::vector<MatmulJob> jobs{{weights_.post_projection.get(), normed, c.hidden, 1, h, c.backbone}};
  if (c.centroids)
    jobs.push_back({weights_.centroids.get(), normed, c.hidden, 1, scratch_.centroid_scores.get(),
                    c.centroids});
  else
    jobs.push_back({weights_.head.get(), normed, c.hidden, 1, scratch_.logits.device(), c.vocab});
  backend_.matmul(jobs);
  backend_.fetch(scratch_.input, c.backbone, c.backbone);
  backend_.fetch(scratch_.normed, 0, c.hidden);
  const Mirror<float>& logits = scratch_.logits;
  if (c.centroids) {
    backend_.cluster_head(weights_.clusters, scratch_.centroid_scores.get(), c.centroid_top_k,
                          normed, scratch_.candidates, logits);
    backend_.fetch(scratch_.candidates, 0, candidate_count());
  }
  if (c.softcap > 0) backend_.softcap(logits.device(), candidate_count(), c.softcap);
  backend_.fetch(logits, 0, candidate_count());
}

}  // namespace gemtp
