// Tests the rules of kernels.h for sums and small numbers against a simpler second implementation:
// sums in chunks of 512, and the same bytes on a processor that flushes subnormal numbers to zero.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar_math.h"
#include "flush_to_zero.h"
#include "kernel_testing.h"

namespace {

using namespace gemtp;
using namespace gemtp::kernel_testing;

/// The sum over i = begin..end-1 in chunks: `add(i, sum)` adds what belongs to i to a chunk's sum.
/// Chunks before `begin` add their zeros, too.
float in_chunks(int64_t begin, int64_t end, const std::function<float(int64_t, float)>& add) {
  float total = 0.0f;
  for (int64_t chunk = 0; chunk * 512 < end; ++chunk) {
    float sum = 0.0f;
    for (int64_t i = begin; i < end; ++i)
      if (i / 512 == chunk) sum = add(i, sum);
    total += sum;
  }
  return total;
}

float flushed(float x) { return std::fabs(x) < 0x1p-40f ? 0.0f : x; }

/// Keys and values as numbers, whatever they lie in.
struct Numbers {
  const Cache& cache;
  float key(int64_t t, int64_t d) const {
    const int64_t slot = t % cache.capacity;
    return at(cache.keys, (slot / 16 * cache.head_dim + d) * 16 + slot % 16);
  }
  float value(int64_t t, int64_t d) const {
    return at(cache.values, (d / 16 * cache.capacity + t % cache.capacity) * 16 + d % 16);
  }
  float at(const Aligned<uint8_t>& from, int64_t i) const {
    if (cache.f16) {
      uint16_t half;
      std::memcpy(&half, from.get() + i * 2, 2);
      return gemtp_f16_to_f32(half);
    }
    float x;
    std::memcpy(&x, from.get() + i * 4, 4);
    return x;
  }
};

/// One query's result, [head_dim].
std::vector<float> attention_of(const Cache& cache, const float* q, gemtp_span span) {
  const Numbers kv{cache};
  std::vector<float> p;  // of positions span.first..last
  for (int64_t t = span.first; t <= span.last; ++t) {
    float score = 0.0f;
    for (int64_t d = 0; d < cache.head_dim; ++d) score = std::fma(q[d], kv.key(t, d), score);
    p.push_back(score);
  }
  const float largest = *std::max_element(p.begin(), p.end());
  for (float& x : p) x = gemtp_exp(x - largest);
  const auto weight = [&](int64_t t) { return p[static_cast<size_t>(t - span.first)]; };

  float total = 0.0f;
  for (int64_t chunk = 0; chunk * 512 <= span.last; ++chunk) {
    float lanes[16] = {};
    for (int64_t t = span.first; t <= span.last; ++t)
      if (t / 512 == chunk) lanes[t % 16] += weight(t);
    for (int n = 8; n >= 1; n /= 2)
      for (int j = 0; j < n; ++j) lanes[j] += lanes[j + n];
    total += lanes[0];
  }
  std::vector<float> out;
  for (int64_t d = 0; d < cache.head_dim; ++d) {
    const float sum = in_chunks(span.first, span.last + 1, [&](int64_t t, float acc) {
      return std::fma(weight(t), kv.value(t, d), acc);
    });
    out.push_back(flushed(sum / total));
  }
  return out;
}

}  // namespace

TEST_CASE("float matmul: sums in chunks of 512 of k, in every table") {
  Random random(21);
  for (const gemtp_format format : {GEMTP_F32, GEMTP_F16, GEMTP_BF16})
    for (const int64_t k : {1, 511, 512, 513, 1023, 1024, 1025, 1700})
      for (const int64_t m : {1, 3, 9}) {
        const int64_t rows = 70;
        const Matrix w(random, format, rows, k, Values::kMixed);
        const Activations x(random, m, k, Values::kMixed);
        std::vector<float> expected, unbroken;
        for (int64_t i = 0; i < m; ++i)
          for (int64_t r = 0; r < rows; ++r) {
            const auto add = [&](int64_t j, float acc) {
              return std::fma(static_cast<float>(w.value[static_cast<size_t>(r * k + j)]),
                              x.x[static_cast<size_t>(i * x.stride + j)], acc);
            };
            expected.push_back(flushed(in_chunks(0, k, add)));
            float acc = 0.0f;
            for (int64_t j = 0; j < k; ++j) acc = add(j, acc);
            unbroken.push_back(flushed(acc));
          }
        if (k != 513) CHECK((k <= 512) == same(unbroken, expected));
        for (const gemtp_kernels* t : tables_and_scalar()) {
          CAPTURE(t->name);
          CAPTURE(k);
          CAPTURE(m);
          CHECK(same(multiply(*t, w, x, 0, (rows + 15) / 16, rows), expected));
        }
      }
}

TEST_CASE("attention: sums in chunks of 512 absolute positions, in every table") {
  struct Case {
    int64_t capacity;
    std::vector<gemtp_span> spans;
  };
  const Case cases[] = {
      {2048, {{0, 510}}},
      {2048, {{0, 511}}},
      {2048, {{0, 512}}},
      {2048, {{0, 1023}, {0, 1024}, {0, 1025}}},
      {2048, {{511, 511}, {511, 512}, {512, 512}, {512, 1500}}},
      // A window in the middle of a chunk, whose ring wraps within chunks and at their end.
      {528, {{700, 1211}, {701, 1212}, {702, 1213}, {703, 1214}, {704, 1215}}},
      {1024, {{1537, 2048}, {1538, 2049}, {1539, 2050}, {1540, 2051}}},
      {1536, {{1400, 2800}, {1536, 2900}, {2000, 2047}, {2048, 2048}, {1500, 1600}, {2559, 2560}}},
      {48, {{1000, 1040}, {1020, 1030}, {1023, 1024}}},
  };
  Random random(22);
  for (const Case& c : cases)
    for (const bool f16 : {true, false})
      for (const int64_t d : {24, 64}) {
        std::vector<gemtp_span> spans;
        for (int repeat = 0; repeat < 3; ++repeat)  // more queries than a tile has
          spans.insert(spans.end(), c.spans.begin(), c.spans.end());
        int64_t first = spans[0].first, last = spans[0].last;
        for (const gemtp_span& s : spans) {
          first = std::min(first, s.first);
          last = std::max(last, s.last);
        }
        const Cache cache(random, f16, d, c.capacity, first, last);
        const auto n_q = static_cast<int64_t>(spans.size());
        std::vector<float> q = draw(random, n_q * d, Values::kPlain), expected;
        for (float& x : q) x *= 0.3f;
        for (int64_t i = 0; i < n_q; ++i) {
          const auto one =
              attention_of(cache, &q[static_cast<size_t>(i * d)], spans[static_cast<size_t>(i)]);
          expected.insert(expected.end(), one.begin(), one.end());
        }
        for (const gemtp_kernels* t : tables_and_scalar()) {
          CAPTURE(t->name);
          CAPTURE(first);
          CAPTURE(last);
          auto out = attend(*t, cache, q, spans);
          out.resize(expected.size());
          CHECK(same(out, expected));
        }
      }
}

namespace {

/// Runs `kernel`, which returns floats, of every table with and without subnormal numbers: the same
/// bytes, and nothing between zero and GEMTP_TINY.
void check_flushed(const std::function<std::vector<float>(const gemtp_kernels&)>& kernel) {
  for (const gemtp_kernels* t : tables_and_scalar()) {
    CAPTURE(t->name);
    const std::vector<float> kept = kernel(*t);
    std::vector<float> flushed_to_zero;
    {
      const FlushToZero on;
      flushed_to_zero = kernel(*t);
    }
    CHECK(same(kept, flushed_to_zero));
    CHECK(std::all_of(kept.begin(), kept.end(),
                      [](float x) { return !(x != 0) || !(std::fabs(x) < 0x1p-40f); }));
  }
}

}  // namespace

TEST_CASE("this processor can flush to zero") {
  volatile float least = 0x1p-126f;
  const FlushToZero on;
  CHECK(gemtp_f32_bits(least * 0.5f) == 0);
}

TEST_CASE("matmul: tiny inputs give the same bytes where they are flushed") {
  Random random(23);
  for (const gemtp_format format : kFormats)
    for (const int64_t m : {1, 5, 16}) {
      const int64_t k = quantized(format) ? 2 * layout(format).k : 700;
      const Matrix w(random, format, 40, k, Values::kTiny);
      Activations x(random, m, k, Values::kTiny);
      for (size_t block = 0; block < x.x.size() / 32;
           block += 3)  // whole blocks that count as zero
        for (size_t i = 0; i < 32; ++i) x.x[block * 32 + i] *= 0x1p-60f;
      if (quantized(format)) x.quantize();
      check_flushed([&](const gemtp_kernels& t) { return multiply(t, w, x, 0, 3, 40); });
    }
}

TEST_CASE("quantize_q8: tiny inputs give the same bytes where they are flushed") {
  Random random(24);
  for (int i = 0; i < 100; ++i) {
    auto x = draw(random, 320, Values::kTiny);
    for (size_t j = 0; j < 320; ++j)
      if (j / 32 % 3 == 0) x[j] = std::ldexp(x[j], -static_cast<int>(random.below(90)));
    for (const gemtp_kernels* t : tables_and_scalar()) {
      CAPTURE(t->name);
      const auto run = [&] {
        std::vector<int8_t> q(320);
        std::vector<float> floats(20);
        std::vector<int32_t> ints(30);
        t->quantize_q8(
            x.data(), 320, 1,
            {q.data(), floats.data(), ints.data(), ints.data() + 10, floats.data() + 10});
        for (const int8_t v : q) ints.push_back(v);
        for (const float v : floats) ints.push_back(static_cast<int32_t>(gemtp_f32_bits(v)));
        return ints;
      };
      const auto kept = run();
      const FlushToZero on;
      CHECK(run() == kept);
    }
  }
}

TEST_CASE("element-wise and row kernels: tiny inputs give the same bytes where they are flushed") {
  Random random(25);
  for (int64_t n = 1; n <= 200; ++n) {
    const auto x = draw(random, n, Values::kTiny), w = draw(random, n, Values::kTiny);
    const auto r = draw(random, n, Values::kTiny);
    check_flushed([&](const gemtp_kernels& t) {
      std::vector<float> all;
      const auto call = [&](auto kernel) {
        std::vector<float> y(x);
        kernel(y.data());
        all.insert(all.end(), y.begin(), y.end());
      };
      call([&](float* y) { t.rms_norm(y, w.data(), n, 1e-6f, y); });
      call([&](float* y) { t.rms_norm(y, nullptr, n, 1e-30f, y); });
      call([&](float* y) { t.rms_norm_add(y, w.data(), n, 1e-6f, r.data(), y); });
      call([&](float* y) { t.gelu_mul(y, w.data(), n, y); });
      call([&](float* y) { t.softcap(y, n, 30.0f, y); });
      call([&](float* y) { t.scale(y, 39.2f, n, y); });
      call([&](float* y) { t.scale(y, 0.02f, n, y); });
      call([&](float* y) { t.axpy(0.4f, w.data(), n, y); });
      if (n % 2) return all;
      call([&](float* y) { t.rope(y, w.data(), r.data(), n); });
      return all;
    });
  }
}

TEST_CASE("attention: tiny inputs give the same bytes where they are flushed") {
  Random random(26);
  for (const bool f16 : {true, false})
    for (int i = 0; i < 12; ++i) {
      const int64_t d = 24, capacity = 1040, n_q = 1 + i, first = 300, last = first + capacity - 1;
      const Cache cache(random, f16, d, capacity, first, last, Values::kTiny);
      auto q = draw(random, n_q * d, Values::kTiny);
      for (float& x : q) x *= static_cast<float>(1 + 4 * i);  // weights that vanish
      const std::vector<gemtp_span> spans(static_cast<size_t>(n_q), {first, last});
      check_flushed([&](const gemtp_kernels& t) { return attend(t, cache, q, spans); });
    }
}

TEST_CASE("f16: conversions keep its subnormal numbers where those of f32 are flushed") {
  std::vector<float> numbers;
  std::vector<uint16_t> halves;
  for (uint32_t h = 0; h < 0x7c00; ++h)
    for (const uint32_t sign : {0u, 0x8000u}) {
      halves.push_back(static_cast<uint16_t>(h | sign));
      numbers.push_back(gemtp_f16_to_f32(halves.back()));
    }
  const auto n = static_cast<int64_t>(halves.size());
  // A matrix of one column, times one: what a kernel makes of the halves as it loads them.
  const int64_t tiles = n / 16;
  REQUIRE(n % 16 == 0);
  Aligned<uint8_t> weights(tiles * 64);
  for (int64_t i = 0; i < n; ++i)
    std::memcpy(weights.get() + i / 16 * 64 + i % 16 * 2, &halves[static_cast<size_t>(i)], 2);
  const float one = 1.0f;
  const FlushToZero on;
  for (const gemtp_kernels* t : tables_and_scalar()) {
    CAPTURE(t->name);
    std::vector<uint16_t> back(halves.size());
    t->to_f16(numbers.data(), n, back.data());
    CHECK(back == halves);
    std::vector<float> y(halves.size());
    gemtp_matmul a{};
    a.weights = weights.get();
    a.tile_bytes = 64;
    a.k = 1;
    a.tiles = tiles;
    a.rows = n;
    a.m = 1;
    a.x = &one;
    a.x_stride = 1;
    a.y = y.data();
    a.y_stride = n;
    t->matmul[GEMTP_F16](&a);
    for (size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == numbers[i]);
  }
}
