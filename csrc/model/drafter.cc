#include "model/drafter.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/target.h"

namespace gemtp {
namespace {

// Steps of one pass, where the backend can choose tokens itself.
constexpr int64_t kMostSteps = 8;

int64_t steps_of_pass(const Backend& backend, const Weights& target) {
  const bool tied = target.head && target.head->source.name == target.token_embedding.name;
  return tied && backend.embeds_best(*target.head) ? kMostSteps : 1;
}

}  // namespace

DrafterScratch::DrafterScratch(const Config& config, Storage& storage, int64_t steps)
    : rows(make_rows(config, storage, 1)),
      layer(config, storage, 1),
      x(storage.alloc(config.hidden)),
      inputs(storage.mirror<float>((steps + 1) * 2 * config.backbone)),
      tokens(storage.mirror<int32_t>(steps + 1)),
      normed(storage.mirror<float>(steps * config.hidden)),
      centroid_scores(storage.alloc(config.centroids)),
      logits(storage.mirror<float>(steps * config.candidates())) {
  if (config.centroids) candidates = storage.mirror<int32_t>(steps * config.candidates());
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
      most_steps_(steps_of_pass(backend, target_weights)),
      scratch_(config, backend, most_steps_),
      recordings_(backend.make_recordings()) {}

void Drafter::begin_round(const KvCache& kv, int64_t p, const float* h, int64_t expected) {
  GEMTP_ASSERT(p >= 1 && kv.length() >= p);
  PassRows& rows = scratch_.rows;
  rows.clear();
  rows.kv = {kv.on_device()};
  rows.begin_run(0);
  rows.add_row();
  const auto last = static_cast<int32_t>(p - 1);
  rows.positions[0] = last + 1;
  rows.full.spans[0] = {0, last};
  rows.sliding.spans[0] = {static_cast<int32_t>(std::max<int64_t>(0, p - config_.window + 1)),
                           last};
  rope_full_.write_angles(rows.positions.host(), 1, rows.full.angles);
  rope_sliding_.write_angles(rows.positions.host(), 1, rows.sliding.angles);
  std::copy_n(h, config_.backbone, scratch_.inputs.host() + config_.backbone);
  expected_ = expected;
  run_ = step_ = 0;
}

void Drafter::step(int32_t token) {
  if (step_ + 1 < run_ && token == scratch_.tokens[step_ + 1]) {
    ++step_;
    return;
  }
  const int64_t backbone = config_.backbone, steps = std::clamp<int64_t>(expected_, 1, most_steps_);
  if (run_ > 0) std::copy_n(hidden(), backbone, scratch_.inputs.host() + backbone);
  expected_ -= steps;
  scratch_.rows.ids[0] = token;
  backend_.embed(target_weights_.token_embedding, scratch_.rows, 0, 1, 0, backbone,
                 embedding_scale(), scratch_.inputs.host());
  run_ = step_ = 0;
  backend_.run(*recordings_, scratch_.rows, {&steps, 1}, [&] { run_steps(steps); });
  backend_.wait();
  run_ = steps;
}

void Drafter::run_steps(int64_t steps) {
  const int64_t width = 2 * config_.backbone;
  backend_.send(scratch_.rows);
  backend_.send(scratch_.inputs, 0, width);
  for (int64_t i = 0; i < steps; ++i) {
    run_layers(i);
    give_outputs(i);
    if (i + 1 < steps) continue_with_best(i);
  }
  backend_.fetch(scratch_.inputs, width, steps * width);
  backend_.fetch(scratch_.normed, 0, steps * config_.hidden);
  backend_.fetch(scratch_.logits, 0, steps * candidate_count());
  if (config_.centroids) backend_.fetch(scratch_.candidates, 0, steps * candidate_count());
  if (steps > 1) backend_.fetch(scratch_.tokens, 1, steps - 1);
}

void Drafter::run_layers(int64_t step) {
  const Config& c = config_;
  const Device<float> x = scratch_.x.get(),
                      input = scratch_.inputs.device() + step * 2 * c.backbone;
  const Device<float> normed = scratch_.normed.device() + step * c.hidden;
  backend_.matmul({{weights_.pre_projection.get(), input, 2 * c.backbone, 1, x, c.hidden}});
  backend_.norm(x, 1, c.hidden, c.eps, {norm_after(-1, weights_, scratch_.layer, normed)});
  for (int i = 0; i < c.n_layers(); ++i) {
    const auto at = static_cast<size_t>(i);
    LayerPass pass{scratch_.rows, 0, 1, 1};
    pass.index = i;
    pass.kv_source = target_.last_kv_layer(c.layers[at].sliding);
    pass.next = {norm_after(i, weights_, scratch_.layer, normed)};
    layer_forward(c, weights_.layers[at], pass, scratch_.layer, backend_, x);
  }
}

void Drafter::give_outputs(int64_t step) {
  const Config& c = config_;
  const int64_t n = candidate_count();
  const Device<float> normed = scratch_.normed.device() + step * c.hidden;
  const Device<float> h = scratch_.inputs.device() + (2 * step + 3) * c.backbone;
  const Device<float> logits = scratch_.logits.device() + step * n;
  std::vector<MatmulJob> jobs{{weights_.post_projection.get(), normed, c.hidden, 1, h, c.backbone}};
  if (c.centroids)
    jobs.push_back({weights_.centroids.get(), normed, c.hidden, 1, scratch_.centroid_scores.get(),
                    c.centroids});
  else
    jobs.push_back({weights_.head.get(), normed, c.hidden, 1, logits, c.vocab});
  backend_.matmul(jobs);
  if (c.centroids)
    backend_.cluster_head(weights_.clusters, scratch_.centroid_scores.get(), c.centroid_top_k,
                          normed, scratch_.candidates.device() + step * n, logits);
  if (c.softcap > 0) backend_.softcap(logits, n, c.softcap);
}

// Makes the input of the next step.
void Drafter::continue_with_best(int64_t step) {
  const int64_t n = candidate_count(), next = step + 1;
  const Device<const int32_t> ids =
      config_.centroids ? scratch_.candidates.device() + step * n : Device<int32_t>();
  backend_.embed_best(*target_weights_.head, embedding_scale(), scratch_.logits.device() + step * n,
                      n, ids, scratch_.tokens.device() + next,
                      scratch_.inputs.device() + next * 2 * config_.backbone);
}

float Drafter::embedding_scale() const { return std::sqrt(static_cast<float>(config_.backbone)); }

}  // namespace gemtp
