// Tests K/V caches and attention of the CPU backend: however rows are stored and the work is
// divided over threads, pieces and steps, the bits are those of a single row on one thread.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_attention.h"
#include "backend/cpu/dispatch.h"
#include "host_memory.h"

using namespace gemtp;

namespace {

constexpr float kSize = 0.3f;  // of keys, values and queries

struct Case {
  int64_t kv_heads, heads, d, keys, rows, window;
};

}  // namespace

TEST_CASE("storing rows together or one by one leaves the same keys and values") {
  ThreadPool pool(2);
  for (const gemtp_kernels* kernels : runnable_kernels())
    for (const bool f16 : {true, false})
      for (const int64_t d : {2, 24, 64}) {
        CpuAttention attention(*kernels, pool);
        const int64_t kv_heads = 3, capacity = 96, total = 500;
        const auto k = random_floats(total * kv_heads * d, 1, kSize),
                   v = random_floats(k.size(), 2, kSize);
        const auto together = attention.make_kv(kv_heads, d, capacity, f16);
        const auto alone = attention.make_kv(kv_heads, d, capacity, f16);
        const auto same = [&] {
          const auto &a = static_cast<const CpuKv&>(*together), &b = static_cast<CpuKv&>(*alone);
          bool equal = std::memcmp(a.keys.get(), b.keys.get(),
                                   static_cast<size_t>(kv_heads * a.key_bytes())) == 0;
          // Lanes behind the last head dim are nobody's.
          const auto bytes = static_cast<size_t>(a.element());
          for (int64_t h = 0; h < kv_heads; ++h)
            for (int64_t s = 0; s < capacity; ++s)
              for (int64_t j = 0; j < d; ++j) {
                const size_t at = static_cast<size_t>((j / 16 * capacity + s) * 16 + j % 16);
                equal = equal && std::memcmp(a.values_of(h) + at * bytes,
                                             b.values_of(h) + at * bytes, bytes) == 0;
              }
          return equal;
        };
        for (int64_t first = 0; first < total;) {
          const int64_t m = std::min<int64_t>(first % 7 ? 1 + first % 5 : 90, total - first);
          const int64_t at = first * kv_heads * d;
          attention.store(*together, k.data() + at, v.data() + at, first, m);
          for (int64_t i = 0; i < m; ++i)
            attention.store(*alone, k.data() + at + i * kv_heads * d,
                            v.data() + at + i * kv_heads * d, first + i, 1);
          first += m;
          if (first >= capacity) CHECK(same());
        }
      }
}

TEST_CASE("attention has the same bits on any threads, in whole pieces or in steps") {
  const Case cases[] = {
      {1, 8, 64, 1500, 1, 0},     // few pieces: cut in steps
      {1, 8, 64, 1500, 5, 0},     // verification
      {1, 8, 32, 700, 40, 512},   // more rows than go together
      {2, 8, 64, 1500, 3, 512},   // a window, two K/V heads
      {3, 3, 40, 3000, 16, 0},    // head dims that fill no column
      {4, 8, 32, 3000, 70, 1024}  // prefill
  };
  for (const Case& c : cases)
    for (const bool f16 : {true, false}) {
      const int64_t end = c.keys + c.rows, capacity = (end + 15) / 16 * 16;
      const auto k = random_floats(end * c.kv_heads * c.d, 1, kSize),
                 v = random_floats(k.size(), 2, kSize);
      const auto q = random_floats(c.rows * c.heads * c.d, 3, kSize);
      std::vector<AttentionSpan> spans;
      for (int64_t p = c.keys; p < end; ++p)
        spans.push_back(span(c.window ? std::max<int64_t>(0, p - c.window + 1) : 0, p));
      std::vector<float> expected(q.size());
      const auto reference = make_cpu_backend(1, "");
      OneSequence sequence(*reference, reference->make_kv(c.kv_heads, c.d, capacity, f16));
      sequence.store(k, v, 0, end);
      const PassRows& rows = sequence.rows(c.keys, spans);
      for (int64_t i = 0; i < c.rows; ++i)
        reference->attention(rows, rows.full, 0, i, 1, at(q.data() + i * c.heads * c.d), c.heads,
                             at(expected.data() + i * c.heads * c.d));
      for (const int threads : {1, 2, 3, 7}) {
        const auto backend = make_cpu_backend(threads, "");
        std::vector<float> out(q.size(), NAN);
        backend->attention(rows, rows.full, 0, 0, c.rows, at(q.data()), c.heads, at(out.data()));
        CHECK(std::memcmp(out.data(), expected.data(), out.size() * 4) == 0);
      }
    }
}
