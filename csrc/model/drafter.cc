#include "model/drafter.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "model/target.h"

namespace gemtp {

DrafterScratch::DrafterScratch(const Config& config, Storage& storage)
    : layer(config, storage, 1),
      input(storage.alloc(2 * config.backbone)),
      x(storage.alloc(config.hidden)),
      normed(storage.alloc(config.hidden)),
      centroid_scores(storage.alloc(config.centroids)),
      cluster_logits(config.centroids ? storage.alloc(config.candidates()) : nullptr),
      logits(storage.alloc(config.candidates())) {}

Drafter::Drafter(const Config& config, const Weights& weights, const Config& target,
                 const Weights& target_weights, Backend& backend)
    : config_(config),
      weights_(weights),
      target_(target),
      target_weights_(target_weights),
      backend_(backend),
      scratch_(config, backend),
      rope_full_(make_rope(config, weights, false)),
      rope_sliding_(make_rope(config, weights, true)) {
  if (!config.centroids) return;
  candidates_.resize(static_cast<size_t>(candidate_count()));
  present_.resize(static_cast<size_t>(config.vocab + 63) / 64);
  before_.resize(present_.size());
}

void Drafter::begin_round(const KvCache& kv, int64_t p) {
  GEMTP_ASSERT(p >= 1 && kv.length() >= p);
  kv_ = &kv;
  angles_full_ = rope_full_.rows(&p, 1);
  angles_sliding_ = rope_sliding_.rows(&p, 1);
  span_full_ = {0, p - 1};
  span_sliding_ = {std::max<int64_t>(0, p - config_.window + 1), p - 1};
}

void Drafter::step(int32_t token, const float* h, float* next_h) {
  GEMTP_ASSERT(kv_ != nullptr);
  const Config& c = config_;
  backend_.embed(target_weights_.token_embedding, &token, 1, 0, c.backbone,
                 std::sqrt(static_cast<float>(c.backbone)), scratch_.input.get());
  std::memcpy(scratch_.input.get() + c.backbone, h,
              static_cast<size_t>(c.backbone) * sizeof(float));
  backend_.matmul({{weights_.pre_projection.get(), scratch_.input.get(), 2 * c.backbone, 1,
                    scratch_.x.get(), c.hidden}});

  for (int i = 0; i < c.n_layers(); ++i) {
    const bool sliding = c.layers[static_cast<size_t>(i)].sliding;
    LayerPass pass;
    pass.m = pass.keep = 1;
    pass.rope = sliding ? angles_sliding_ : angles_full_;
    pass.spans = sliding ? &span_sliding_ : &span_full_;
    const RowRange all{0, 1, 0, nullptr, &kv_->layer(target_.last_kv_layer(sliding))};
    pass.ranges = {&all, 1};
    pass.weights = &weights_;
    pass.index = i;
    layer_forward(c, weights_.layers[static_cast<size_t>(i)], pass, scratch_.layer, backend_,
                  scratch_.x.get());
  }
  backend_.rms_norm(scratch_.x.get(), weights_.output_norm.get(), 1, c.hidden, c.eps,
                    scratch_.normed.get());

  std::vector<MatmulJob> jobs{
      {weights_.post_projection.get(), scratch_.normed.get(), c.hidden, 1, next_h, c.backbone}};
  if (c.centroids) {
    jobs.push_back({weights_.centroids.get(), scratch_.normed.get(), c.hidden, 1,
                    scratch_.centroid_scores.get(), c.centroids});
    backend_.matmul(jobs);
    ordered_head(scratch_.normed.get());
  } else {
    jobs.push_back(
        {weights_.head.get(), scratch_.normed.get(), c.hidden, 1, scratch_.logits.get(), c.vocab});
    backend_.matmul(jobs);
  }
  if (c.softcap > 0)
    backend_.softcap(scratch_.logits.get(), 1, candidate_count(), c.softcap, scratch_.logits.get());
}

// Logits of the tokens in the best clusters; every other token is out of the running.
void Drafter::ordered_head(const float* normed) {
  const Config& c = config_;
  const float* scores = scratch_.centroid_scores.get();
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
    jobs.push_back({weights_.clusters[cluster].get(), normed, c.hidden, 1,
                    scratch_.cluster_logits.get() + i * per_cluster, per_cluster});
  }
  backend_.matmul(jobs);
  sort_candidates();
}

// cluster_logits_ -> candidates_ and logits_, ascending by id. The ids are a small set of small
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
