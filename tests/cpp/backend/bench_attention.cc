// Measures attention: gemtp_attention_bench [threads] [isa]
//
// Decoding and verification: rows after a long context, 8 heads over one K/V head, in GB/s of K and
// V (each counted once per pass) and Gflop/s. Prefill: a chunk of rows over a sliding window, and
// the cost of storing the chunk's K and V. Also the steps of a decode pass, one by one, on one
// thread.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "backend/cpu/cpu_attention.h"
#include "backend/cpu/dispatch.h"
#include "base/error.h"
#include "base/thread_pool.h"

using namespace gemtp;

namespace {

std::vector<float> noise(int64_t n) {
  std::vector<float> v(static_cast<size_t>(n));
  uint32_t x = 1;
  for (float& e : v) {
    x = x * 1664525u + 1013904223u;
    e = (static_cast<float>(x >> 8) * 0x1p-23f - 1.0f) * 0.25f;
  }
  return v;
}

// Seconds of the fastest call within about 0.3 s.
double fastest(const std::function<void()>& fn) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9, total = 0;
  for (int calls = 0; calls < 3 || total < 0.3; ++calls) {
    const auto start = Clock::now();
    fn();
    const double s = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, s);
    total += s;
  }
  return best;
}

struct Bench {
  const gemtp_kernels& kernels;
  ThreadPool pool;
  CpuAttention attention;
  Bench(int threads, const gemtp_kernels& k) : kernels(k), pool(threads), attention(k, pool) {}

  std::unique_ptr<KvLayer> cache(int64_t kv_heads, int64_t d, int64_t capacity, bool f16) {
    auto kv = attention.make_kv(kv_heads, d, capacity, f16);
    const auto x = noise(capacity * kv_heads * d);
    attention.store(*kv, x.data(), x.data(), 0, capacity);
    return kv;
  }

  void decode(int64_t d, int64_t keys, int64_t heads, int64_t kv_heads, bool f16) {
    const int64_t most = 16;
    const auto kv = cache(kv_heads, d, keys + most, f16);
    const auto q = noise(most * heads * d);
    std::vector<float> out(q.size());
    double one = 0;
    for (int64_t rows : {1, 2, 4, 8, 16}) {
      std::vector<AttentionSpan> spans;
      for (int64_t i = 0; i < rows; ++i) spans.push_back({0, static_cast<int32_t>(keys + i)});
      const double s =
          fastest([&] { attention.attend(*kv, q.data(), rows, heads, spans.data(), out.data()); });
      if (rows == 1) one = s;
      const auto bytes = static_cast<double>(2 * keys * d * kv_heads * (f16 ? 2 : 4));
      const auto flop = static_cast<double>(4 * keys * d * heads * rows);
      std::printf(
          "decode  d %3d keys %5d heads %2d/%d %s rows %2d: %8.1f us, %5.2f of one row, "
          "%5.1f GB/s, %5.1f Gflop/s\n",
          int(d), int(keys), int(heads), int(kv_heads), f16 ? "f16" : "f32", int(rows), s * 1e6,
          s / one, bytes / s * 1e-9, flop / s * 1e-9);
    }
  }

  void prefill(int64_t d, int64_t rows, int64_t window, int64_t heads, int64_t kv_heads) {
    const int64_t first = window;
    const auto kv = cache(kv_heads, d, window + rows, true);
    const auto q = noise(rows * heads * d), x = noise(rows * kv_heads * d);
    std::vector<float> out(q.size());
    std::vector<AttentionSpan> spans;
    for (int64_t i = 0; i < rows; ++i)
      spans.push_back(
          {static_cast<int32_t>(first + i - window + 1), static_cast<int32_t>(first + i)});
    const double s =
        fastest([&] { attention.attend(*kv, q.data(), rows, heads, spans.data(), out.data()); });
    const double store = fastest([&] { attention.store(*kv, x.data(), x.data(), first, rows); });
    const double one = fastest([&] { attention.store(*kv, x.data(), x.data(), first, 1); });
    std::printf(
        "prefill d %3d rows %d window %d heads %d/%d: %.0f us, %.1f Gflop/s; storing K and "
        "V %.0f us, of one row %.2f us\n",
        int(d), int(rows), int(window), int(heads), int(kv_heads), s * 1e6,
        static_cast<double>(4 * rows * window * d * heads) / s * 1e-9, store * 1e6, one * 1e6);
  }

  void steps(int64_t d, int64_t keys, int64_t n_q) {
    const auto layer = cache(1, d, keys, true);
    const auto& kv = static_cast<const CpuKv&>(*layer);
    const auto q = noise(n_q * d);
    std::vector<float> out(q.size()), sums(static_cast<size_t>(n_q));
    std::vector<const float*> queries;
    std::vector<float*> results;
    for (int64_t i = 0; i < n_q; ++i) {
      queries.push_back(q.data() + i * d);
      results.push_back(out.data() + i * d);
    }
    const std::vector<gemtp_span> spans(static_cast<size_t>(n_q), {0, keys - 1});
    Scratch<float> weights;
    gemtp_attention a{kv.keys_of(0),
                      kv.values_of(0),
                      1,
                      d,
                      keys,
                      n_q,
                      queries.data(),
                      results.data(),
                      spans.data(),
                      weights.ensure(n_q * (keys + 16)),
                      keys + 16,
                      0,
                      sums.data()};
    const double scores = fastest([&] { kernels.attention_scores(&a, 0, keys / 16); });
    const double softmax = fastest([&] { kernels.attention_weights(&a, 0, n_q); });
    kernels.attention_scores(&a, 0, keys / 16);
    kernels.attention_weights(&a, 0, n_q);
    const double values = fastest([&] { kernels.attention_values(&a, 0, d / 16); });
    const auto flop = static_cast<double>(2 * keys * d * n_q);
    std::printf(
        "steps   d %3d keys %5d queries %3d: scores %.1f Gflop/s, weights %.1f%% of the "
        "time, values %.1f Gflop/s\n",
        int(d), int(keys), int(n_q), flop / scores * 1e-9,
        100 * softmax / (scores + softmax + values), flop / values * 1e-9);
  }
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
    Bench bench(threads, select_kernels(argc > 2 ? argv[2] : ""));
    std::printf("%s, %d threads\n", bench.kernels.name, threads);
    for (const int64_t n_q : {1, 2, 4, 6, 8, 16, 32, 64, 128}) bench.steps(256, 1024, n_q);
    for (const int64_t n_q : {1, 8, 64}) bench.steps(512, 16384, n_q);
    for (const int64_t d : {256, 512})
      for (const int64_t keys : {512, 4096, 16384}) bench.decode(d, keys, 8, 1, true);
    bench.decode(256, 4096, 8, 1, false);
    bench.decode(256, 1024, 16, 8, true);
    bench.prefill(256, 512, 512, 8, 1);
    bench.prefill(256, 512, 1024, 16, 8);
    bench.prefill(512, 512, 4096, 8, 1);
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  }
  return 0;
}
