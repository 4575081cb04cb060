// Attention on the emulated GPU against the scalar kernels.
#include <algorithm>
#include <cmath>

#include "gpu_testing.h"

namespace {

using namespace gemtp;
using namespace gemtp::gpu_testing;
using kernel_testing::Cache;
using kernel_testing::draw;
using kernel_testing::same;

struct Case {
  int64_t m, group, kv_heads, d, capacity;
  bool f16;
  std::vector<Span> spans;  // [m]
};

void check(Random& random, const Case& c) {
  int32_t first = c.spans[0].first, last = c.spans[0].last;
  for (const Span& s : c.spans) {
    first = std::min(first, s.first);
    last = std::max(last, s.last);
  }
  const int64_t heads = c.group * c.kv_heads, n = c.m * heads * c.d;
  auto q = draw(random, n, Values::kMixed);
  if (random.below(2))  // all positions weigh about the same
    for (float& v : q) v *= 0.02f;
  const bool damaged = c.spans.front().last < last;
  std::vector<float> expected(static_cast<size_t>(n));
  std::vector<std::unique_ptr<Cache>> caches;
  std::vector<uint8_t> keys, values;
  const int64_t element = c.f16 ? 2 : 4;
  const int64_t key_bytes = c.capacity * c.d * element;
  const int64_t value_bytes = c.capacity * ((c.d + 15) / 16 * 16) * element;
  for (int64_t h = 0; h < c.kv_heads; ++h) {
    caches.push_back(std::make_unique<Cache>(random, c.f16, c.d, c.capacity, first, last));
    if (damaged) {  // the last key and value, which not all rows see
      Cache& cache = *caches.back();
      const int64_t slot = last % c.capacity;
      cache.put(cache.keys, slot / 16 * 16 * c.d + slot % 16, std::nanf(""));
      cache.put(cache.values, slot * 16, kernel_testing::kInf);
    }
    keys.insert(keys.end(), caches.back()->keys.get(), caches.back()->keys.get() + key_bytes);
    values.insert(values.end(), caches.back()->values.get(),
                  caches.back()->values.get() + value_bytes);
    for (int64_t i = 0; i < c.m; ++i)
      for (int64_t g = h * c.group; g < (h + 1) * c.group; ++g) {
        const auto at = (i * heads + g) * c.d;
        const std::vector<float> one(q.begin() + at, q.begin() + at + c.d);
        const Span s = c.spans[static_cast<size_t>(i)];
        const auto out = attend(gemtp_kernels_scalar, *caches.back(), one, {{s.first, s.last}});
        std::copy_n(out.begin(), c.d, expected.begin() + at);
      }
  }
  const int64_t stride = (last - first + 256) / 128 * 128;
  for (uint64_t seed = 0; seed < orders(); ++seed)
    for (const int64_t tile : {2, 8}) {
      TestDevice device(seed);
      AttentionArguments a{};
      a.q = device.upload(q);
      a.spans = device.upload(c.spans);
      a.kv =
          device.upload(std::vector<KvPlace>{{device.upload(keys), device.upload(values), key_bytes,
                                              value_bytes, static_cast<int32_t>(c.capacity)}});
      // The rows follow three others, and the first of them is a run of its own.
      const auto m = static_cast<int32_t>(c.m);
      std::vector<Run> runs = {{0, 4, 0}, {4, m - 1, 0}};
      a.runs = device.upload(runs);
      a.first_row = 3;
      a.tiles = static_cast<int32_t>((c.group + tile - 1) / tile +
                                     ((c.m - 1) * c.group + tile - 1) / tile);
      a.m = static_cast<int32_t>(c.m);
      a.heads = static_cast<int32_t>(heads);
      a.kv_heads = static_cast<int32_t>(c.kv_heads);
      a.d = static_cast<int32_t>(c.d);
      a.p = device.allocate<float>(c.m * heads * stride);
      a.maxima = device.allocate<float>(c.m * heads * stride / 128);
      a.p_stride = static_cast<int32_t>(stride);
      a.out = device.allocate<float>(n);
      const QuantizedResult quants(device, n / 32 + 1);
      if (c.d % 32 == 0) a.quantized = quants.rows;
      const std::string suffix = std::string(c.f16 ? "_f16_" : "_f32_") + std::to_string(tile);
      device.launch("attention_scores" + suffix, stride / 128, c.kv_heads * a.tiles, a);
      device.launch("attention_values" + suffix, (c.d + 31) / 32, c.kv_heads * a.tiles, a);
      CAPTURE(c.m);
      CAPTURE(c.d);
      CAPTURE(first);
      CAPTURE(last);
      CAPTURE(tile);
      CHECK(same(device.download(a.out, n), expected));
      if (c.d % 32 == 0) CHECK(quants.equals(device, quantized(expected.data(), 1, n, n)));
    }
}

}  // namespace

TEST_CASE("gpu attention: rows of a causal span, long and short") {
  Random random(21);
  for (int i = 0; i < 24; ++i) {
    Case c{};
    c.m = 1 + random.below(4);
    c.group = 1 + random.below(4);
    c.kv_heads = 1 + random.below(2);
    c.d = i % 3 ? 2 * (1 + random.below(40)) : i % 2 ? 256 : 288;
    c.f16 = i % 2;
    const int64_t p = random.below(i % 4 ? 700 : 6000);
    const bool sliding = i % 3 == 1;
    const int64_t window = sliding ? 100 + random.below(500) : p + 10;
    c.capacity = sliding ? (window + 31) / 16 * 16 : (p + 31) / 16 * 16;
    for (int64_t r = 0; r < c.m; ++r)
      c.spans.push_back({static_cast<int32_t>(std::max<int64_t>(0, p + r - window + 1)),
                         static_cast<int32_t>(p + r)});
    check(random, c);
  }
}

TEST_CASE("gpu attention: spans that are not causal") {
  Random random(22);
  for (int i = 0; i < 8; ++i) {
    Case c{5, 2, 1, 64, 2048, i % 2 != 0, {}};
    for (int64_t r = 0; r < c.m; ++r) {
      const int64_t first = random.below(1500), last = first + random.below(2000 - first);
      c.spans.push_back({static_cast<int32_t>(first), static_cast<int32_t>(last)});
    }
    check(random, c);
  }
}

TEST_CASE("gpu attention: a ring that ends between multiples of 32") {
  Random random(23);
  for (const bool f16 : {false, true})
    check(random, {3, 2, 1, 32, 48, f16, {{20, 59}, {21, 60}, {22, 61}}});
}
