// Compares every kernel table that can run here with the scalar one, bit by bit, and the scalar one
// with double precision, within bounds that follow from its definition.
#include "backend/cpu/kernels.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/scalar_math.h"
#include "base/error.h"
#include "base/float16.h"
#include "kernel_testing.h"

namespace {

using namespace gemtp;
using namespace gemtp::kernel_testing;

constexpr double kHalfUlp = 0x1p-24;  // relative error of one rounding to float

void check_matmul(Random& random, gemtp_format format, int64_t rows, int64_t k, int64_t m,
                  Values values) {
  const Matrix w(random, format, rows, k, values);
  const Activations x(random, m, k, quantized(format) ? Values::kMixed : values);
  const int64_t tiles = (rows + 15) / 16;
  const int64_t begin = random.below(tiles), end = begin + 1 + random.below(tiles - begin);
  const int64_t y_stride = rows + random.below(4);
  for (const auto& [from, to] : {std::pair{int64_t{0}, tiles}, std::pair{begin, end}}) {
    const auto expected = multiply(gemtp_kernels_scalar, w, x, from, to, y_stride);
    for (const gemtp_kernels* t : tables()) {
      CAPTURE(t->name);
      CAPTURE(static_cast<int>(format));
      CAPTURE(rows);
      CAPTURE(k);
      CAPTURE(m);
      CHECK(same(multiply(*t, w, x, from, to, y_stride), expected));
    }
  }
}

/// |value - exact| in units of the last place of a float near `exact`.
double ulps(float value, double exact) {
  int exponent;
  std::frexp(exact, &exponent);
  return std::fabs(static_cast<double>(value) - exact) /
         std::ldexp(1.0, std::max(exponent, -125) - 24);
}

}  // namespace

TEST_CASE("matmul: every table gives the scalar bits") {
  Random random(1);
  for (const gemtp_format format : kFormats)
    for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 33})
      for (int i = 0; i < 4; ++i) {
        const int64_t step = quantized(format) ? layout(format).k : 1;
        const int64_t k = step * (1 + random.below(step == 1    ? 70
                                                   : step == 32 ? 9
                                                                : 3)) +
                          (step == 1 && i == 0 ? GEMTP_CHUNK : 0);
        check_matmul(random, format, 1 + random.below(150), k, m, Values::kMixed);
      }
}

TEST_CASE("matmul: infinities and subnormals") {
  Random random(2);
  for (const gemtp_format format : {GEMTP_F32, GEMTP_F16, GEMTP_BF16})
    for (const int64_t m : {1, 2, 5}) check_matmul(random, format, 40, 9, m, Values::kSpecial);
}

TEST_CASE("matmul: long rows, so that prefetching and the int16 sums are exercised") {
  Random random(3);
  for (const gemtp_format format : kFormats)
    for (const int64_t m : {1, 3, 13}) check_matmul(random, format, 33, 1536, m, Values::kPlain);
}

TEST_CASE("matmul: the result of a row does not depend on how many rows go with it") {
  Random random(4);
  for (const gemtp_format format : kFormats) {
    const int64_t k = quantized(format) ? 3 * layout(format).k : 96;
    const Matrix w(random, format, 50, k, Values::kPlain);
    const Activations x(random, 17, k, Values::kPlain);
    for (const gemtp_kernels* t : tables()) {
      const auto together = multiply(*t, w, x, 0, 4, 50);
      const auto alone = multiply(*t, w, x.first(1), 0, 4, 50);
      CHECK(same(alone, {together.begin(), together.begin() + 50}));
    }
  }
}

TEST_CASE("matmul: scalar within the error bound of its additions") {
  Random random(5);
  for (const gemtp_format format : kFormats) {
    const int64_t rows = 20, k = 1536, m = 3;
    const Matrix w(random, format, rows, k, Values::kPlain);
    const Activations x(random, m, k, Values::kPlain);
    const auto y = multiply(gemtp_kernels_scalar, w, x, 0, 2, rows);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t r = 0; r < rows; ++r) {
        double exact = 0, magnitude = 0;
        for (int64_t j = 0; j < k; ++j) {
          double xj = static_cast<double>(x.x[static_cast<size_t>(i * x.stride + j)]);
          if (quantized(format))
            xj = static_cast<double>(x.q[static_cast<size_t>(x.block(i, j / 32) * 32 + j % 32)]) *
                 static_cast<double>(x.d[static_cast<size_t>(x.block(i, j / 32))]);
          const auto at = static_cast<size_t>(r * k + j);
          exact += w.value[at] * xj;
          magnitude += w.magnitude[at] * std::fabs(xj);
        }
        // One rounding per addition, of chunks too; a block of a quantized row adds once or, with a
        // minimum, twice, and what it adds is the product of numbers that were rounded up to twice.
        const double roundings =
            static_cast<double>(quantized(format) ? k / 16 + 2 : k + k / GEMTP_CHUNK);
        const double bound = roundings * kHalfUlp / (1 - roundings * kHalfUlp) * magnitude;
        const double error =
            std::fabs(static_cast<double>(y[static_cast<size_t>(i * rows + r)]) - exact);
        REQUIRE(error <= bound);
      }
  }
}

TEST_CASE("quantize_q8: every table gives the scalar bits") {
  Random random(6);
  for (int i = 0; i < 200; ++i) {
    const int64_t k = 32 * (1 + random.below(6)), n = 1 + random.below(16);
    std::vector<float> x = draw(random, k, static_cast<Values>(i % 3));
    if (i % 5 == 0) {  // a block around the size below which it counts as zero, and a tie
      for (int64_t j = 0; j < 32; ++j) x[static_cast<size_t>(j)] *= GEMTP_TINY / 2;
      x[0] = i % 2 ? GEMTP_TINY : std::nextafter(GEMTP_TINY, 0.0f);
    }
    if (i % 7 == 0) x[static_cast<size_t>(random.below(k))] = std::nanf("");
    const auto run = [&](const gemtp_kernels& t) {
      // The last of n rows of a panel; what belongs to the others stays.
      std::vector<int8_t> q(static_cast<size_t>(n * k), 1);
      std::vector<float> d(static_cast<size_t>(n * k / 32), 1), sum(d);
      std::vector<int32_t> bias(d.size(), 1), pairs(2 * d.size(), 1);
      t.quantize_q8(
          x.data(), k, n,
          gemtp_q8_next({q.data(), d.data(), bias.data(), pairs.data(), sum.data()}, n - 1));
      std::vector<uint8_t> bytes;
      const auto append = [&bytes](const auto& v) {
        const auto* p = reinterpret_cast<const uint8_t*>(v.data());
        bytes.insert(bytes.end(), p, p + v.size() * sizeof v[0]);
      };
      append(q);
      append(d);
      append(bias);
      append(pairs);
      append(sum);
      return bytes;
    };
    for (const gemtp_kernels* t : tables()) {
      CAPTURE(t->name);
      CHECK(run(*t) == run(gemtp_kernels_scalar));
    }
  }
}

TEST_CASE("element-wise and row kernels: every table gives the scalar bits") {
  Random random(7);
  for (int64_t n = 1; n <= 100; ++n)
    for (const Values values : {Values::kPlain, Values::kMixed, Values::kSpecial}) {
      const auto x = draw(random, n, values), w = draw(random, n, values);
      const auto r = draw(random, n, values);
      const auto run = [&](const gemtp_kernels& t) {
        std::vector<float> all;
        const auto call = [&](auto kernel) {
          std::vector<float> y(x);  // in place: y starts as x and is also the input
          y.push_back(-7.25f);
          kernel(y.data());
          all.insert(all.end(), y.begin(), y.end());
        };
        call([&](float* y) { t.rms_norm(y, w.data(), n, 1e-6f, y); });
        call([&](float* y) { t.rms_norm(x.data(), nullptr, n, 1e-6f, y); });
        call([&](float* y) { t.rms_norm_add(x.data(), w.data(), n, 1e-6f, y, y); });
        call([&](float* y) { t.rms_norm_add(y, w.data(), n, 1e-6f, r.data(), y); });
        call([&](float* y) { t.gelu_mul(y, w.data(), n, y); });
        call([&](float* y) { t.gelu_mul(w.data(), y, n, y); });
        call([&](float* y) { t.softcap(y, n, 30.0f, y); });
        call([&](float* y) { t.softcap(y, n, 0.5f, y); });
        call([&](float* y) { t.rope(y, w.data(), r.data(), n / 2 * 2); });
        call([&](float* y) { t.scale(y, 0.3f, n, y); });
        call([&](float* y) { t.axpy(-0.7f, w.data(), n, y); });
        return all;
      };
      for (const gemtp_kernels* t : tables()) {
        CAPTURE(t->name);
        CAPTURE(n);
        CHECK(same(run(*t), run(gemtp_kernels_scalar)));
      }
    }
}

TEST_CASE("exp, tanh and gelu over their whole range: every table gives the scalar bits") {
  std::vector<float> x;
  for (float v = -100.0f; v < 100.0f; v += 0.0137f) x.push_back(v);
  for (const float edge : {GEMTP_EXP_LOW, GEMTP_EXP_HIGH, GEMTP_TANH_SMALL, 0.0f})
    for (const float v : {std::nextafter(edge, -kInf), edge, std::nextafter(edge, kInf)}) {
      x.push_back(v);
      x.push_back(-v);
    }
  const std::vector<float> ones(x.size(), 1.0f);
  const int64_t n = static_cast<int64_t>(x.size());
  std::vector<float> expected(x.size()), y(x.size());
  for (const gemtp_kernels* t : tables()) {
    CAPTURE(t->name);
    gemtp_kernels_scalar.softcap(x.data(), n, 1.0f, expected.data());
    t->softcap(x.data(), n, 1.0f, y.data());
    CHECK(same(y, expected));
    gemtp_kernels_scalar.gelu_mul(x.data(), ones.data(), n, expected.data());
    t->gelu_mul(x.data(), ones.data(), n, y.data());
    CHECK(same(y, expected));
  }
}

TEST_CASE("attention: every table gives the scalar bits, whatever old slots hold") {
  Random random(8);
  for (const int64_t head_dim : {2, 6, 8, 16, 24, 32, 48, 64, 70, 256})
    for (const int64_t n_q : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 20})
      for (const bool f16 : {true, false}) {
        const int64_t capacity = 16 * (1 + random.below(8));
        const int64_t first = random.below(300);
        const int64_t last = first + random.below(capacity);
        const Cache cache(random, f16, head_dim, capacity, first, last);
        auto q = draw(random, n_q * head_dim, Values::kMixed);
        if (random.below(4) == 0)  // scores far apart: weights that vanish
          for (float& v : q) v *= 40.0f;
        // One span for all, a window that moves on with the rows, or any spans at all.
        std::vector<gemtp_span> spans(static_cast<size_t>(n_q), {first, last});
        const int64_t kind = random.below(3), per_row = 1 + random.below(4);
        for (int64_t i = 0; i < n_q && kind > 0; ++i) {
          const int64_t from =
              kind == 1 ? first + i / per_row : first + random.below(last - first + 1);
          const int64_t to = kind == 1 ? last - (n_q - i - 1) / per_row : last - random.below(20);
          if (from <= to && from >= first && to <= last) spans[static_cast<size_t>(i)] = {from, to};
        }
        const auto expected = attend(gemtp_kernels_scalar, cache, q, spans);
        for (const float v : expected) REQUIRE(std::isfinite(v));
        for (const gemtp_kernels* t : tables()) {
          CAPTURE(t->name);
          CAPTURE(head_dim);
          CAPTURE(n_q);
          CAPTURE(f16);
          CHECK(same(attend(*t, cache, q, spans), expected));
          CHECK(same(attend(*t, cache, q, spans, 1 + random.below(5)), expected));
        }
      }
}

TEST_CASE("attention: a query's result does not depend on the others, infinities included") {
  Random random(11);
  const int64_t d = 40, capacity = 1536, n_q = 24, last = 1900;
  for (const bool f16 : {true, false}) {
    Cache cache(random, f16, d, capacity, last - capacity + 1, last);
    // A value that only some of the queries attend to.
    cache.put(cache.values, (last % capacity) * 16 + 3, kInf);
    const auto q = draw(random, n_q * d, Values::kPlain);
    std::vector<gemtp_span> spans;
    for (int64_t i = 0; i < n_q; ++i) spans.push_back({last - 1300 + i, last - (n_q - 1 - i) / 2});
    for (const gemtp_kernels* t : tables()) {
      CAPTURE(t->name);
      const auto together = attend(*t, cache, q, spans);
      CHECK(same(together, attend(gemtp_kernels_scalar, cache, q, spans)));
      for (int64_t i = 0; i < n_q; ++i) {
        auto alone = attend(*t, cache, {q.begin() + i * d, q.begin() + (i + 1) * d},
                            {spans[static_cast<size_t>(i)]});
        alone.resize(static_cast<size_t>(d));
        CHECK(same(alone, {together.begin() + i * d, together.begin() + (i + 1) * d}));
        CHECK(std::isfinite(alone[3]) == (spans[static_cast<size_t>(i)].last < last));
      }
    }
  }
}

TEST_CASE("attention: scalar against softmax in double") {
  Random random(9);
  const int64_t d = 24, capacity = 48, first = 37, last = 80;
  const Cache cache(random, false, d, capacity, first, last);
  const auto q = draw(random, d, Values::kPlain);
  const auto out = attend(gemtp_kernels_scalar, cache, q, {{first, last}});
  std::vector<double> exact(static_cast<size_t>(d)), magnitude(exact), sizes(exact);
  double sum = 0, largest_score = 0;
  const float* keys = reinterpret_cast<const float*>(cache.keys.get());
  const float* values = reinterpret_cast<const float*>(cache.values.get());
  for (int64_t t = first; t <= last; ++t) {
    const int64_t slot = t % capacity;
    double score = 0, absolute = 0;
    for (int64_t i = 0; i < d; ++i) {
      const double term = static_cast<double>(q[static_cast<size_t>(i)]) *
                          static_cast<double>(keys[(slot / 16 * d + i) * 16 + slot % 16]);
      score += term;
      absolute += std::fabs(term);
    }
    largest_score = std::max(largest_score, absolute);
    const double p = std::exp(score);
    sum += p;
    for (int64_t i = 0; i < d; ++i) {
      const double v = static_cast<double>(values[(i / 16 * capacity + slot) * 16 + i % 16]);
      exact[static_cast<size_t>(i)] += p * v;
      magnitude[static_cast<size_t>(i)] += p * std::fabs(v);
      sizes[static_cast<size_t>(i)] += std::fabs(v);
    }
  }
  // Scores err by d roundings each, which exp turns into a relative error (twice: the maximum's
  // error cancels, p's and the sum's do not); then one rounding per position, exp's own and two.
  // Weights and results below GEMTP_TINY are left out.
  const double relative = (2 * (static_cast<double>(d) + 1) * largest_score +
                           2 * static_cast<double>(last - first + 1) + 6) *
                          kHalfUlp;
  for (size_t i = 0; i < exact.size(); ++i)
    CHECK(std::fabs(static_cast<double>(out[i]) - exact[i] / sum) <=
          relative * magnitude[i] / sum + static_cast<double>(GEMTP_TINY) * (1 + 2 * sizes[i]));
}

TEST_CASE("exp, tanh, gelu: error against double") {
  double worst_exp = 0, worst_tanh = 0, worst_gelu = 0;
  const double scale = 2 * std::sqrt(2 / 3.14159265358979323846);
  for (int i = 0; i < 400000; ++i) {
    const float x = GEMTP_EXP_LOW + 115.0f * static_cast<float>(i) / 400000.0f;
    const double exact = std::exp(static_cast<double>(x));
    worst_exp =
        std::max(worst_exp, std::fabs(static_cast<double>(gemtp_exp(x)) / exact - 1) / kHalfUlp);
    const float t = x * 0.12f;
    worst_tanh = std::max(worst_tanh, ulps(gemtp_tanh(t), std::tanh(static_cast<double>(t))));
    const double g = static_cast<double>(t), argument = scale * (g + 0.044715 * g * g * g);
    const double gelu = g / (1 + std::exp(-argument));
    // The argument of exp carries six roundings, exp 1.6, the sum and the quotient one each; where
    // exp is capped at e^88 the result is below |x| 2^-126.
    const double bound =
        (6 * std::fabs(argument) + 4) * kHalfUlp * std::fabs(gelu) + std::fabs(g) * 0x1p-126;
    worst_gelu = std::max(
        worst_gelu, std::fabs(static_cast<double>(gemtp_gelu(t)) - gelu) / std::max(bound, 1e-45));
  }
  MESSAGE("exp " << worst_exp << " half-ulps, tanh " << worst_tanh << " ulps, gelu " << worst_gelu
                 << " of its bound");
  CHECK(worst_exp <= 1.6);
  // 1 - 2 / (e + 1) at |x| = 0.625, where it is worst, in units of 2^-24 (its last place): 0.35
  // times exp's 1.6 and the sum's 1, 0.45 from the quotient and 0.5 from the difference.
  CHECK(worst_tanh <= 1.9);
  CHECK(worst_gelu <= 1.0);
  CHECK(gemtp_exp(GEMTP_EXP_LOW) >= GEMTP_TINY);
  CHECK(gemtp_exp(std::nextafter(GEMTP_EXP_LOW, -kInf)) == 0.0f);
  CHECK(gemtp_exp(0.0f) == 1.0f);
  CHECK(gemtp_exp(1000.0f) == gemtp_exp(88.0f));
  CHECK(gemtp_tanh(50.0f) == 1.0f);
  CHECK(gemtp_tanh(-50.0f) == -1.0f);
}

TEST_CASE("f16: all patterns to float and back") {
  std::vector<float> values(65536);
  std::vector<uint16_t> patterns(65536);
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = gemtp_f16_to_f32(static_cast<uint16_t>(h));
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    values[h] = f;
    CHECK_EQ(std::signbit(f), (h & 0x8000) != 0);
    if (exponent == 31) {
      CHECK_EQ(std::isnan(f), mantissa != 0);
      CHECK_EQ(std::isinf(f), mantissa == 0);
      patterns[h] = static_cast<uint16_t>(mantissa ? h | 0x200 : h);  // NaNs become quiet
    } else {
      const double magnitude =
          exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
      CHECK_EQ(static_cast<double>(std::fabs(f)), magnitude);
      patterns[h] = static_cast<uint16_t>(h);
    }
  }
  for (const gemtp_kernels* t : tables_and_scalar()) {
    CAPTURE(t->name);
    std::vector<uint16_t> back(65536);
    t->to_f16(values.data(), 65536, back.data());
    CHECK(back == patterns);
  }
}

TEST_CASE("f16: rounding is to nearest even, in every table") {
  std::vector<float> x;
  std::vector<uint16_t> expected;
  Random random(10);
  // Between every two neighbours: the midpoint (a tie, to the even one) and a float to its sides.
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const float low = gemtp_f16_to_f32(static_cast<uint16_t>(h));
    const float high = gemtp_f16_to_f32(static_cast<uint16_t>(h + 1));
    const float middle = low + (high - low) / 2;
    const float side = random.below(2) ? -1.0f : 1.0f;
    for (const float v : {middle, std::nextafter(middle, low), std::nextafter(middle, high)}) {
      x.push_back(side * v);
      const uint32_t nearest = v == middle ? h + (h & 1) : v < middle ? h : h + 1;
      expected.push_back(static_cast<uint16_t>(nearest | (side < 0 ? 0x8000 : 0)));
    }
  }
  for (const float v : {65519.996f, 65520.0f, 1e30f, kInf, 2.9802322e-8f, 2.9802326e-8f, 1e-40f}) {
    x.push_back(v);
    expected.push_back(v < 1 ? (v > 2.9802323e-8f ? 1 : 0) : v < 65520.0f ? 0x7bff : 0x7c00);
  }
  for (const gemtp_kernels* t : tables_and_scalar()) {
    CAPTURE(t->name);
    for (const size_t n : {x.size(), x.size() - 5, size_t{3}}) {
      std::vector<uint16_t> y(n);
      t->to_f16(x.data(), static_cast<int64_t>(n), y.data());
      CHECK(std::memcmp(y.data(), expected.data(), n * 2) == 0);
    }
  }
}

TEST_CASE("dispatch: names") {
  const auto runnable = runnable_kernels();
  CHECK(std::string(runnable.back()->name) == "scalar");
  std::string names;
  for (const gemtp_kernels* t : runnable)
    names += (names.empty() ? "" : ", ") + std::string(t->name);
  MESSAGE("runnable here: " << names);
  for (const gemtp_kernels* t : runnable) CHECK(&select_kernels(t->name) == t);
  for (const char* name : {"avx3", "AVX2", "scalar ", "avx512\n"}) {
    std::string message;
    try {
      select_kernels(name);
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::kArgument);
      message = e.what();
    }
    CHECK(message.find("known: avx512vnni, avx512, avxvnni, avx2, neon_i8mm, neon_dotprod, neon, "
                       "scalar") != std::string::npos);
    CHECK(message.find('\n') == std::string::npos);
  }
  for (const char* name :
       {"avx512vnni", "avx512", "avxvnni", "avx2", "neon_i8mm", "neon_dotprod", "neon"}) {
    bool runs = false;
    for (const gemtp_kernels* t : runnable) runs = runs || std::string(t->name) == name;
    if (!runs) CHECK_THROWS_AS(select_kernels(name), Error);
  }
}
