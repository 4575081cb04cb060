// Helpers for tests of the CPU backend, whose memory is the host's, so that it can use vectors of
// the test.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_attention.h"
#include "base/thread_pool.h"

namespace gemtp {

template <class T>
Device<T> at(T* address) {
  return Device<T>(address);
}

/// Draws n numbers of standard deviation `size`.
inline std::vector<float> random_floats(int64_t n, uint32_t seed, float size = 1.0f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = normal(rng);
  return v;
}

inline AttentionSpan span(int64_t first, int64_t last) {
  return {static_cast<int32_t>(first), static_cast<int32_t>(last)};
}

/// Makes rows with these ids, without a sequence.
inline PassRows rows_of(Backend& backend, const std::vector<int32_t>& ids) {
  PassRows rows(backend, static_cast<int64_t>(ids.size()), 0, 0);
  rows.begin_run(0);
  for (const int32_t id : ids) rows.ids[rows.add_row()] = id;
  return rows;
}

/// Rows of one sequence from position `first` on, with layer 0 of its K/V.
class OneSequence {
 public:
  OneSequence(Backend& backend, std::unique_ptr<KvLayer> layer) : backend_(backend) {
    layers_.push_back(std::move(layer));
  }

  const PassRows& rows(int64_t first, const std::vector<AttentionSpan>& spans) {
    return rows(first, static_cast<int64_t>(spans.size()), &spans);
  }
  const PassRows& rows(int64_t first, int64_t m,
                       const std::vector<AttentionSpan>* spans = nullptr) {
    rows_ = std::make_unique<PassRows>(backend_, m, 0, 0);
    rows_->kv = {layers_};
    rows_->begin_run(0);
    for (int64_t i = 0; i < m; ++i) {
      rows_->add_row();
      rows_->positions[i] = static_cast<int32_t>(first + i);
      if (spans) rows_->full.spans[i] = (*spans)[static_cast<size_t>(i)];
    }
    return *rows_;
  }

  KvLayers layers() const { return layers_; }

  /// Stores keys and values [m, kv_heads, d] unchanged at positions first .. first + m - 1.
  void store(const std::vector<float>& k, const std::vector<float>& v, int64_t first, int64_t m) {
    ThreadPool pool(1);
    const KvLayer& l = *layers_[0];
    const int64_t at = first * l.kv_heads * l.head_dim;
    CpuAttention(gemtp_kernels_scalar, pool)
        .store(*layers_[0], k.data() + at, v.data() + at, first, m);
  }

 private:
  Backend& backend_;
  std::vector<std::unique_ptr<KvLayer>> layers_;
  std::unique_ptr<PassRows> rows_;
};

}  // namespace gemtp
