// Tests the choices of a backend by scores: the experts of rows, and the clusters of an ordered
// head.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "backend/backend.h"
#include "host_memory.h"

using namespace gemtp;

namespace {

MatrixPtr matrix_of(Backend& backend, const std::vector<float>& w, int64_t rows, int64_t cols) {
  return backend.load_matrix({DType::kF32, rows, cols, reinterpret_cast<const uint8_t*>(w.data())});
}

// The numbers of the largest scores, best first, of equal ones the first.
std::vector<size_t> best_of(const float* scores, size_t n, size_t top) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  order.resize(top);
  return order;
}

}  // namespace

TEST_CASE("rows get what their experts make of them, whoever else goes to the same ones") {
  const auto backend = make_cpu_backend(2, "");
  constexpr int64_t kHidden = 48, kFfn = 24, kExperts = 9, kUsed = 3, kRows = 21;
  std::vector<MatrixPtr> gate, up, down;
  for (uint32_t e = 0; e < kExperts; ++e) {
    gate.push_back(matrix_of(*backend, random_floats(kFfn * kHidden, 3 * e), kFfn, kHidden));
    up.push_back(matrix_of(*backend, random_floats(kFfn * kHidden, 3 * e + 1), kFfn, kHidden));
    down.push_back(matrix_of(*backend, random_floats(kHidden * kFfn, 3 * e + 2), kHidden, kFfn));
  }
  const ExpertMatrices w{backend->make_set(std::move(gate)), backend->make_set(std::move(up)),
                         backend->make_set(std::move(down))};
  const auto x = random_floats(kRows * kHidden, 100), scale = random_floats(kExperts, 101);
  std::vector<float> scores = random_floats(kRows * kExperts, 102);
  std::fill_n(scores.begin(), kExperts, 0.5f);  // the first row: all are equal
  const auto routing = backend->make_routing({kRows, kExperts, kUsed, kHidden, kFfn});
  std::vector<float> together(kRows * kHidden);
  backend->route(at(scores.data()), at(scale.data()), kRows, *routing);
  backend->expert_feed_forward(w, at(x.data()), kRows, *routing, at(together.data()));
  for (size_t i = 0; i < kRows; ++i) {
    const float* row = scores.data() + i * kExperts;
    std::vector<float> alone(kHidden), gated(kFfn), out(kHidden);
    backend->route(at(row), at(scale.data()), 1, *routing);
    backend->expert_feed_forward(w, at(x.data() + i * kHidden), 1, *routing, at(alone.data()));
    REQUIRE(std::memcmp(alone.data(), together.data() + i * kHidden, kHidden * 4) == 0);

    std::vector<double> wanted(kHidden), size(kHidden);
    double total = 0;
    const std::vector<size_t> best = best_of(row, kExperts, kUsed);
    for (const size_t e : best) total += std::exp(static_cast<double>(row[e]) - row[best[0]]);
    for (const size_t e : best) {
      const auto expert = static_cast<int64_t>(e);
      backend->gated_matmul({{&(*w.gate)[expert], &(*w.up)[expert], at(x.data() + i * kHidden),
                              kHidden, 1, at(gated.data()), kFfn}});
      backend->matmul({{&(*w.down)[expert], at(gated.data()), kFfn, 1, at(out.data()), kHidden}});
      const double weight = std::exp(static_cast<double>(row[e]) - row[best[0]]) / total * scale[e];
      for (size_t j = 0; j < kHidden; ++j) {
        wanted[j] += weight * out[j];
        size[j] += std::fabs(weight * out[j]);
      }
    }
    // Of each term a few roundings of the weight and one of the sum.
    for (size_t j = 0; j < kHidden; ++j)
      CHECK(std::fabs(alone[j] - wanted[j]) <= 16 * 6e-8 * size[j]);
  }
}

TEST_CASE("the tokens of the best clusters come by id, each with its logit") {
  const auto backend = make_cpu_backend(3, "");
  constexpr int64_t kHidden = 32, kClusters = 20, kEach = 7, kTop = 5, kTokens = kClusters * kEach;
  std::vector<int32_t> order(kTokens);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  const auto head = random_floats(kTokens * kHidden, 2), x = random_floats(kHidden, 3);
  ClusterMatrices w;
  w.tokens = backend->mirror<int32_t>(kTokens);
  std::copy(order.begin(), order.end(), w.tokens.host());
  std::vector<MatrixPtr> clusters;
  for (int64_t c = 0; c < kClusters; ++c) {
    std::vector<float> rows;
    for (int64_t j = 0; j < kEach; ++j) {
      const float* row = head.data() + order[static_cast<size_t>(c * kEach + j)] * kHidden;
      rows.insert(rows.end(), row, row + kHidden);
    }
    clusters.push_back(matrix_of(*backend, rows, kEach, kHidden));
  }
  w.clusters = backend->make_set(std::move(clusters));
  std::vector<float> all(kTokens);
  const MatrixPtr whole = matrix_of(*backend, head, kTokens, kHidden);
  backend->matmul({{whole.get(), at(x.data()), kHidden, 1, at(all.data()), kTokens}});

  const Mirror<int32_t> ids = backend->mirror<int32_t>(kTop * kEach);
  const Mirror<float> logits = backend->mirror<float>(kTop * kEach);
  for (uint32_t seed = 0; seed < 4; ++seed) {
    std::vector<float> scores = random_floats(kClusters, seed);
    if (seed == 3) std::fill(scores.begin(), scores.end(), -1.0f);  // the first ones, then
    backend->cluster_head(w, at(scores.data()), kTop, at(x.data()), ids.device(), logits.device());
    std::vector<int32_t> wanted;
    for (const size_t c : best_of(scores.data(), kClusters, kTop))
      wanted.insert(wanted.end(), order.begin() + static_cast<int64_t>(c) * kEach,
                    order.begin() + static_cast<int64_t>(c + 1) * kEach);
    std::sort(wanted.begin(), wanted.end());
    for (int64_t i = 0; i < kTop * kEach; ++i) {
      REQUIRE(ids[i] == wanted[static_cast<size_t>(i)]);
      CHECK(logits[i] == all[static_cast<size_t>(ids[i])]);
    }
  }
}
