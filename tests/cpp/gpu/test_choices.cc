// What the emulated GPU chooses among scores, against the plain ways to say it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/largest.h"
#include "gpu_testing.h"

namespace {

using namespace gemtp;
using namespace gemtp::gpu_testing;
using kernel_testing::draw;
using kernel_testing::kInf;
using kernel_testing::same;

}  // namespace

TEST_CASE("gpu head: softcap and the best logit") {
  Random random(31);
  for (int i = 0; i < 40; ++i) {
    const int64_t m = 1 + random.below(3), n = 1 + random.below(i % 2 ? 40 : 3000), parts = 4;
    const float cap = i % 3 ? 30.0f : 0.0f;
    auto x = draw(random, m * n, Values::kMixed);
    for (float& v : x) v = gemtp_flush(v);
    if (i % 4 == 0)  // several that are equal
      for (float& v : x) v = std::floor(v);
    if (i % 5 == 0) std::fill(x.begin(), x.end(), -kInf);
    if (i % 7 == 0) x[static_cast<size_t>(random.below(m * n))] = std::nanf("");
    if (i % 11 == 0) x[static_cast<size_t>(random.below(m * n))] = kInf;
    auto capped = x;
    if (cap > 0) gemtp_kernels_scalar.softcap(x.data(), m * n, cap, capped.data());
    for (uint64_t seed = 0; seed < orders(); ++seed) {
      TestDevice device(seed);
      HeadArguments a{};
      a.logits = device.upload(x);
      a.n = static_cast<int32_t>(n);
      a.parts = parts;
      a.cap = cap;
      a.part_best = device.allocate<Best>(m * parts);
      a.best = device.allocate<Best>(m);
      device.launch("head_softcap", parts, m, a);
      device.launch("best_of_parts", 1, m, a);
      CHECK(same(device.download(a.logits, m * n), capped));
      const auto best = device.download(a.best, m);
      for (int64_t r = 0; r < m; ++r) {
        const float* row = capped.data() + r * n;
        const Largest top = largest(row, n);
        const float* at = top.damaged ? std::find_if(row, row + n, damaged_logit)
                                      : std::find(row, row + n, top.value);
        CHECK(best[static_cast<size_t>(r)].index == at - row);
        CHECK(std::memcmp(&best[static_cast<size_t>(r)].logit, at, 4) == 0);
      }
    }
  }
}

TEST_CASE("gpu ordered head: the best clusters, their tokens in order") {
  Random random(32);
  for (int i = 0; i < 8; ++i) {
    const int64_t clusters = 20 + random.below(700), per_cluster = 1 + random.below(30);
    const int64_t top = 1 + random.below(16);
    auto scores = draw(random, clusters, Values::kPlain);
    if (i % 2)
      for (float& v : scores) v = std::floor(v * 4);
    std::vector<int32_t> tokens(static_cast<size_t>(clusters * per_cluster));
    std::iota(tokens.begin(), tokens.end(), 0);
    for (size_t j = tokens.size(); j > 1; --j)
      std::swap(tokens[j - 1], tokens[static_cast<size_t>(random.below(static_cast<int64_t>(j)))]);
    for (int64_t c = 0; c < clusters; ++c)
      std::sort(tokens.begin() + c * per_cluster, tokens.begin() + (c + 1) * per_cluster);
    const auto logits = draw(random, top * per_cluster, Values::kPlain);

    std::vector<int32_t> order(static_cast<size_t>(clusters));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
    });
    std::vector<std::pair<int32_t, float>> expected;
    for (int64_t j = 0; j < top * per_cluster; ++j)
      expected.emplace_back(
          tokens[static_cast<size_t>(order[static_cast<size_t>(j / per_cluster)] * per_cluster +
                                     j % per_cluster)],
          logits[static_cast<size_t>(j)]);
    std::sort(expected.begin(), expected.end());
    for (uint64_t seed = 0; seed < orders(); ++seed) {
      TestDevice device(seed);
      TopArguments t{device.upload(scores), static_cast<int32_t>(clusters),
                     static_cast<int32_t>(top), device.allocate<MatrixRows>(top)};
      device.launch("top_clusters", (clusters + 255) / 256, 1, t);
      const auto chosen = device.download(t.chosen, top);
      for (size_t j = 0; j < chosen.size(); ++j) {
        CHECK(chosen[j].matrix == order[j]);
        CHECK(chosen[j].first == static_cast<int32_t>(j));
        CHECK(chosen[j].count == 1);
      }
      const int64_t n = top * per_cluster;
      CandidatesArguments c{t.chosen,
                            device.upload(tokens),
                            device.upload(logits),
                            static_cast<int32_t>(top),
                            static_cast<int32_t>(per_cluster),
                            device.allocate<int32_t>(n),
                            device.allocate<float>(n)};
      device.launch("sort_candidates", (n + 255) / 256, 1, c);
      const auto ids = device.download(c.candidates, n);
      const auto sorted = device.download(c.sorted_logits, n);
      for (size_t j = 0; j < ids.size(); ++j) {
        CHECK(ids[j] == expected[j].first);
        CHECK(sorted[j] == expected[j].second);
      }
    }
  }
}

TEST_CASE("gpu route: the experts of rows, and their slots by expert") {
  Random random(33);
  for (int i = 0; i < 10; ++i) {
    const int64_t m = 1 + random.below(12), experts = 2 + random.below(i % 3 ? 40 : 400);
    const int64_t used = 1 + random.below(std::min<int64_t>(experts, 8)), slots = m * used;
    auto scores = draw(random, m * experts, Values::kPlain);
    if (i % 2)
      for (float& v : scores) v = std::floor(v * 8);
    const auto scale = draw(random, experts, Values::kPlain);
    std::vector<int32_t> expert;
    std::vector<float> weight;
    for (int64_t r = 0; r < m; ++r) {
      const float* s = scores.data() + r * experts;
      std::vector<int32_t> order(static_cast<size_t>(experts));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [s](int32_t a, int32_t b) { return s[a] > s[b]; });
      float total = 0;
      for (int64_t j = 0; j < used; ++j)
        total += gemtp_exp(s[order[static_cast<size_t>(j)]] - s[order[0]]);
      for (int64_t j = 0; j < used; ++j) {
        const int32_t e = order[static_cast<size_t>(j)];
        expert.push_back(e);
        weight.push_back(
            gemtp_flush(gemtp_exp(s[e] - s[order[0]]) / total * scale[static_cast<size_t>(e)]));
      }
    }
    for (uint64_t seed = 0; seed < orders(); ++seed) {
      TestDevice device(seed);
      RouteArguments a{device.upload(scores),           device.upload(scale),
                       static_cast<int32_t>(m),         static_cast<int32_t>(experts),
                       static_cast<int32_t>(used),      device.allocate<int32_t>(slots),
                       device.allocate<float>(slots),   device.allocate<int32_t>(slots),
                       device.allocate<int32_t>(slots), device.allocate<MatrixRows>(experts)};
      device.launch("route", 1, 1, a);
      CHECK(device.download(a.slot_expert, slots) == expert);
      CHECK(same(device.download(a.slot_weight, slots), weight));
      const auto places = device.download(a.slot_place, slots);
      const auto rows = device.download(a.place_row, slots);
      const auto list = device.download(a.list, experts);
      int32_t place = 0, last = -1;
      for (const MatrixRows& entry : list) {
        if (entry.count == 0) continue;
        CHECK(entry.matrix > last);
        CHECK(entry.first == place);
        for (int64_t s = 0; s < slots; ++s)
          if (expert[static_cast<size_t>(s)] == entry.matrix) {
            CHECK(places[static_cast<size_t>(s)] == place);
            CHECK(rows[static_cast<size_t>(place)] == s / used);
            ++place;
          }
        CHECK(place == entry.first + entry.count);
        last = entry.matrix;
      }
      CHECK(place == slots);
    }
  }
}
