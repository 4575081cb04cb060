#include "model/drafter.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "model/target.h"

namespace gemtp {

DrafterScratch::DrafterScratch(const Config& config, Storage& storage)
    : rows(make_rows(config, storage, 1)),
      layer(config, storage, 1),
      input(storage.alloc(2 * config.backbone)),
      x(storage.alloc(config.hidden)),
      normed(storage.mirror<float>(config.hidden)),
      next_hidden(storage.mirror<float>(config.backbone)),
      centroid_scores(storage.mirror<float>(config.centroids)),
      cluster_logits(storage.mirror<float>(config.centroids ? config.candidates() : 0)),
      logits(storage.mirror<float>(config.candidates())) {}

Drafter::Drafter(const Config& config, const Weights& weights, const Config& target,
                 const Weights& target_weights, Backend& backend)
    : config_(config),
      weights_(weights),
      target_(target),
      target_weights_(target_weights),
      backend_(backend),
      rope_full_(make_rope(config, weights, false)),
      rope_sliding_(make_rope(config, weights, true)),
      scratch_(config, backend) {
  if (!config.centroids) return;
  candidates_.resize(static_cast<size_t>(candidate_count()));
  present_.resize(static_cast<size_t>(config.vocab + 63) / 64);
  before_.resize(present_.size());
}

void Drafter::begin_round(const KvCache& kv, int64_t p, const float* h) {
  GEMTP_ASSERT(p >= 1 && kv.length() >= p);
  PassRows& rows = scratch_.rows;
  rows.kv = {kv.layers()};
  rows.count = 1;
  rows.positions[0] = p;
  rows.full.spans[0] = {0, p - 1};
  rows.sliding.spans[0] = {std::max<int64_t>(0, p - config_.window + 1), p - 1};
  rope_full_.write_angles(&p, 1, rows.full.angles);
  rope_sliding_.write_angles(&p, 1, rows.sliding.angles);
  backend_.write(h, config_.backbone, scratch_.input.get() + config_.backbone);
}

void Drafter::step(int32_t token) {
  PassRows& rows = scratch_.rows;
  GEMTP_ASSERT(rows.count == 1);
  rows.ids[0] = token;
  backend_.send(rows);
  backend_.run({}, [this] {
    run_layers();
    give_outputs();
  });
  backend_.wait();
  if (config_.centroids) sort_candidates();
}

void Drafter::run_layers() {
  const Config& c = config_;
  const Device<float> input = scratch_.input.get(), x = scratch_.x.get();
  backend_.embed(target_weights_.token_embedding, scratch_.rows, 0, 1, 0, c.backbone,
                 std::sqrt(static_cast<float>(c.backbone)), input);
  backend_.matmul({{weights_.pre_projection.get(), input, 2 * c.backbone, 1, x, c.hidden}});
  for (int i = 0; i < c.n_layers(); ++i) {
    LayerPass pass{scratch_.rows, 0, 1, 1};
    pass.weights = &weights_;
    pass.index = i;
    pass.kv_source = target_.last_kv_layer(c.layers[static_cast<size_t>(i)].sliding);
    layer_forward(c, weights_.layers[static_cast<size_t>(i)], pass, scratch_.layer, backend_, x);
  }
}

void Drafter::give_outputs() {
  const Config& c = config_;
  const Device<float> normed = scratch_.normed.device(), h = scratch_.input.get() + c.backbone;
  backend_.rms_norm(scratch_.x.get(), weights_.output_norm.get(), 1, c.hidden, c.eps, normed);
  std::vector<MatmulJob> jobs{{weights_.post_projection.get(), normed, c.hidden, 1, h, c.backbone}};
  if (c.centroids)
    jobs.push_back({weights_.centroids.get(), normed, c.hidden, 1,
                    scratch_.centroid_scores.device(), c.centroids});
  else
    jobs.push_back({weights_.head.get(), normed, c.hidden, 1, scratch_.logits.device(), c.vocab});
  backend_.matmul(jobs);
  backend_.copy(h, c.backbone, scratch_.next_hidden.device());
  backend_.fetch(scratch_.next_hidden, 0, c.backbone);
  backend_.fetch(scratch_.normed, 0, c.hidden);
  const Mirror<float>& logits = c.centroids ? scratch_.cluster_logits : scratch_.logits;
  if (c.centroids) ordered_head();
  if (c.softcap > 0)
    backend_.softcap(logits.device(), 1, candidate_count(), c.softcap, logits.device());
  backend_.fetch(logits, 0, candidate_count());
}

// Logits of the tokens in the best clusters; every other token is out of the running.
void Drafter::ordered_head() {
  const Config& c = config_;
  backend_.fetch(scratch_.centroid_scores, 0, c.centroids);
  backend_.wait();
  const float* scores = scratch_.centroid_scores.host();
  cluster_order_.resize(static_cast<size_t>(c.centroids));
  std::iota(cluster_order_.begin(), cluster_order_.end(), 0);
  std::partial_sort(cluster_order_.begin(), cluster_order_.begin() + c.centroid_top_k,
                    cluster_order_.end(), [scores](int32_t a, int32_t b) {
                      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
                    });
  const int64_t per_cluster = c.vocab / c.centroids;
  std::vector<MatmulJob> jobs;
  for (int64_t i = 0; i < c.centroid_top_k; ++i) {
    const auto cluster = static_cast<size_t>(cluster_order_[static_cast<size_t>(i)]);
    jobs.push_back({weights_.clusters[cluster].get(), scratch_.normed.device(), c.hidden, 1,
                    scratch_.cluster_logits.device() + i * per_cluster, per_cluster});
  }
  backend_.matmul(jobs);
}

// cluster_logits -> candidates_ and logits, ascending by id. The ids are a small set of small
// integers: a bitmap of them, which the nearest cache holds, says how many are below each.
void Drafter::sort_candidates() {
  const int64_t per_cluster = config_.vocab / config_.centroids;
  const auto for_each_candidate = [&](const auto& fn) {
    for (int64_t i = 0; i < config_.centroid_top_k; ++i) {
      const int32_t* tokens =
          weights_.token_order.data() + cluster_order_[static_cast<size_t>(i)] * per_cluster;
      for (int64_t j = 0; j < per_cluster; ++j) {
        const auto id = static_cast<size_t>(tokens[j]);
        fn(id, id / 64, uint64_t{1} << (id % 64), i * per_cluster + j);
      }
    }
  };
  for_each_candidate([&](size_t, size_t word, uint64_t bit, int64_t) { present_[word] |= bit; });
  int32_t n = 0;
  for (size_t word = 0; word < present_.size(); ++word) {
    before_[word] = n;
    n += std::popcount(present_[word]);
  }
  for_each_candidate([&](size_t id, size_t word, uint64_t bit, int64_t at) {
    const int32_t rank = before_[word] + std::popcount(present_[word] & (bit - 1));
    candidates_[static_cast<size_t>(rank)] = static_cast<int32_t>(id);
    scratch_.logits[rank] = scratch_.cluster_logits[at];
  });
  for_each_candidate([&](size_t, size_t word, uint64_t, int64_t) { present_[word] = 0; });
}

}  // namespace gemtp
