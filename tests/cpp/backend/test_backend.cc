// Tests the CPU backend: packing, division over threads, and independence of rows.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/dispatch.h"
#include "backend/cpu/pack.h"
#include "base/error.h"
#include "base/float16.h"
#include "host_memory.h"

using namespace gemtp;

namespace {

struct Weight {
  std::vector<uint8_t> bytes;
  WeightSource source;
};

void put_u16(std::vector<uint8_t>& out, uint16_t v) {
  out.push_back(static_cast<uint8_t>(v & 255));
  out.push_back(static_cast<uint8_t>(v >> 8));
}

// Where the 16-bit floats of a block lie.
std::vector<size_t> half_places(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

void put_half(std::vector<uint8_t>& bytes, size_t at, uint16_t half) {
  std::memcpy(bytes.data() + at, &half, 2);
}

// Sets a scale of a block that begins at byte `at`.
void put_scale(std::vector<uint8_t>& bytes, DType type, size_t at, uint16_t half) {
  if (type == DType::kNVFP4) return;  // any bytes are scales
  if (type == DType::kMXFP4)
    bytes[at] = (half & 0x7c00) == 0x7c00 ? 255 : 120;
  else if (type == DType::kIQ1_M)  // nibble by nibble on top of four words
    for (size_t i = 0; i < 4; ++i)
      bytes[at + 49 + 2 * i] =
          static_cast<uint8_t>((bytes[at + 49 + 2 * i] & 15) | (half >> 4 * i & 15) << 4);
  else
    put_half(bytes, at + half_places(type).back(), half);
}

// Random rows in the file's layout.
Weight make_weight(DType type, int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  Weight w;
  const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
  for (int64_t b = 0; b < rows * cols / info.block; ++b) {
    const float v = normal(rng);
    switch (type) {
      case DType::kF32: {
        uint8_t raw[4];
        std::memcpy(raw, &v, 4);
        w.bytes.insert(w.bytes.end(), raw, raw + 4);
        break;
      }
      case DType::kF16:
        put_u16(w.bytes, gemtp_f32_to_f16(v));
        break;
      case DType::kBF16:
        put_u16(w.bytes, static_cast<uint16_t>(gemtp_f32_bits(v) >> 16));
        break;
      default: {
        const size_t at = w.bytes.size();
        for (int i = 0; i < info.bytes; ++i) w.bytes.push_back(static_cast<uint8_t>(rng()));
        if (type != DType::kMXFP4 && type != DType::kNVFP4 && type != DType::kIQ1_M)
          for (const size_t half : half_places(type))
            put_half(w.bytes, at + half, gemtp_f32_to_f16(normal(rng) * 0.01f));
        put_scale(w.bytes, type, at, gemtp_f32_to_f16(v * 0.01f));
      }
    }
  }
  w.source = {type, rows, cols, w.bytes.data()};
  return w;
}

// All that dtype_supported() names.
std::vector<DType> all_types() {
  std::vector<DType> types;
  for (uint32_t type = 0; type < 64; ++type)
    if (dtype_supported(type)) types.push_back(static_cast<DType>(type));
  return types;
}

// About n, as a type's blocks allow.
int64_t whole_blocks(DType type, int64_t n) {
  const int64_t block = dtype_info(static_cast<uint32_t>(type))->block;
  return block == 256 ? 2 * block : n / block * block;
}

}  // namespace

TEST_CASE("matmul is the product with the dequantized weights, within the activations' rounding") {
  const auto backend = make_cpu_backend(2, "");
  for (DType type : all_types())
    for (int64_t rows : {1, 16, 37, 130}) {
      const int64_t cols = whole_blocks(type, 96), m = 5;
      const Weight w = make_weight(type, rows, cols, 7);
      const auto matrix = backend->load_matrix(w.source);
      const std::vector<float> x = random_floats(m * cols, 3);
      std::vector<float> y(static_cast<size_t>(m * rows), NAN);
      backend->matmul({{matrix.get(), at(x.data()), cols, m, at(y.data()), rows}});
      std::vector<float> wr(static_cast<size_t>(cols));
      Scratch<uint8_t> buffer;
      for (int64_t i = 0; i < m; ++i)
        for (int64_t r = 0; r < rows; ++r) {
          dequantize(w.source, r, 0, cols, buffer, wr.data());
          double want = 0, bound = 0;
          for (int64_t b = 0; b < cols; b += 32) {
            double amax = 0, sum = 0;
            for (int64_t k = b; k < b + 32; ++k) {
              want += static_cast<double>(wr[static_cast<size_t>(k)]) *
                      x[static_cast<size_t>(i * cols + k)];
              amax = std::max(amax,
                              std::fabs(static_cast<double>(x[static_cast<size_t>(i * cols + k)])));
              sum += std::fabs(static_cast<double>(wr[static_cast<size_t>(k)]));
            }
            // Half a quantization step for each activation; float rounding is far below it.
            const bool floats = dtype_info(static_cast<uint32_t>(type))->block == 1;
            bound += sum * amax * (floats ? 96 * 6e-8 : 0.5 / 127 * 1.01);
          }
          CHECK(std::fabs(y[static_cast<size_t>(i * rows + r)] - want) <= bound + 1e-12);
        }
    }
}

TEST_CASE("a row's product has the same bits alone, in a batch, on any threads and any table") {
  for (DType type : all_types()) {
    const int64_t rows = 75, cols = whole_blocks(type, 160), m = 19;
    const Weight w = make_weight(type, rows, cols, 11);
    const std::vector<float> x = random_floats(m * cols, 5);
    std::vector<float> want(static_cast<size_t>(m * rows));
    {
      const auto scalar = make_cpu_backend(1, "scalar");
      const auto matrix = scalar->load_matrix(w.source);
      for (int64_t i = 0; i < m; ++i)
        scalar->matmul(
            {{matrix.get(), at(x.data() + i * cols), cols, 1, at(want.data() + i * rows), rows}});
    }
    for (const gemtp_kernels* k : runnable_kernels())
      for (int threads : {1, 2, 3}) {
        const auto backend = make_cpu_backend(threads, k->name);
        const auto matrix = backend->load_matrix(w.source);
        std::vector<float> y(want.size());
        backend->matmul({{matrix.get(), at(x.data()), cols, m, at(y.data()), rows}});
        CHECK(std::memcmp(y.data(), want.data(), want.size() * 4) == 0);
      }
  }
}

TEST_CASE("a matrix of listed rows is those rows in that order") {
  const auto backend = make_cpu_backend(1, "");
  const Weight w = make_weight(DType::kQ4_0, 40, 64, 2);
  const std::vector<int32_t> order{39, 0, 7, 7, 21};
  const auto all = backend->load_matrix(w.source);
  const auto some = backend->load_matrix(w.source, &order);
  const std::vector<float> x = random_floats(64, 1);
  std::vector<float> y(40), z(5);
  backend->matmul({{all.get(), at(x.data()), 64, 1, at(y.data()), 40},
                   {some.get(), at(x.data()), 64, 1, at(z.data()), 5}});
  for (size_t i = 0; i < order.size(); ++i) CHECK(z[i] == y[static_cast<size_t>(order[i])]);
}

TEST_CASE("NaN and infinite weights or scales are refused by name") {
  const auto backend = make_cpu_backend(1, "");
  for (DType type : all_types()) {
    if (type == DType::kNVFP4) continue;  // all of its scales are finite
    for (float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const int64_t cols = whole_blocks(type, 64);
      Weight w = make_weight(type, 3, cols, 2);
      const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
      if (type == DType::kF32)
        std::memcpy(w.bytes.data() + 4 * 70, &bad, 4);
      else if (type == DType::kBF16)
        w.bytes[2 * 70 + 1] = 0x7f, w.bytes[2 * 70] = 0x80;
      else if (type == DType::kF16)
        put_half(w.bytes, 140, gemtp_f32_to_f16(bad));
      else
        put_scale(w.bytes, type, static_cast<size_t>(info.bytes) * 3, gemtp_f32_to_f16(bad));
      w.source.name = "blk.0.x";
      CHECK_THROWS_WITH_AS(backend->load_matrix(w.source), doctest::Contains("blk.0.x"), Error);
    }
  }
}

TEST_CASE("attention is softmax over the span, in a ring that has wrapped, alone or in a batch") {
  for (const gemtp_kernels* kernels : runnable_kernels())
    for (bool f16 : {true, false})
      for (int64_t d : {8, 24, 64}) {
        const int64_t kv_heads = 2, heads = 6, capacity = 48, window = 20, total = 131;
        const auto backend = make_cpu_backend(2, kernels->name);
        OneSequence sequence(*backend, backend->make_kv(kv_heads, d, capacity, f16));
        std::vector<float> k = random_floats(total * kv_heads * d, 1),
                           v = random_floats(total * kv_heads * d, 2);
        for (float& e : k) e = gemtp_f16_to_f32(gemtp_f32_to_f16(e * 0.5f));
        for (float& e : v) e = gemtp_f16_to_f32(gemtp_f32_to_f16(e));
        const std::vector<float> q = random_floats(total * heads * d, 3);
        std::vector<float> batched(q.size()), single(q.size());
        for (int64_t first = 0; first < total;) {
          const int64_t m = std::min<int64_t>(1 + first % 13, total - first);
          sequence.store(k, v, first, m);
          std::vector<AttentionSpan> spans;
          for (int64_t p = first; p < first + m; ++p)
            spans.push_back(span(std::max<int64_t>(0, p - window + 1), p));
          const PassRows& rows = sequence.rows(first, spans);
          backend->attention(rows, rows.full, 0, 0, m, at(q.data() + first * heads * d), heads,
                             at(batched.data() + first * heads * d));
          for (int64_t i = 0; i < m; ++i)
            backend->attention(rows, rows.full, 0, i, 1, at(q.data() + (first + i) * heads * d),
                               heads, at(single.data() + (first + i) * heads * d));
          first += m;
        }
        CHECK(std::memcmp(batched.data(), single.data(), batched.size() * 4) == 0);
        double worst = 0;
        for (int64_t p = 0; p < total; ++p)
          for (int64_t h = 0; h < heads; ++h) {
            const int64_t g = h / (heads / kv_heads), lo = std::max<int64_t>(0, p - window + 1);
            std::vector<double> e;
            double top = -1e300, sum = 0;
            for (int64_t t = lo; t <= p; ++t) {
              double s = 0;
              for (int64_t j = 0; j < d; ++j)
                s += static_cast<double>(q[static_cast<size_t>((p * heads + h) * d + j)]) *
                     k[static_cast<size_t>((t * kv_heads + g) * d + j)];
              e.push_back(s);
              top = std::max(top, s);
            }
            for (double& s : e) sum += s = std::exp(s - top);
            for (int64_t j = 0; j < d; ++j) {
              double want = 0;
              for (int64_t t = lo; t <= p; ++t)
                want += e[static_cast<size_t>(t - lo)] / sum *
                        v[static_cast<size_t>((t * kv_heads + g) * d + j)];
              worst = std::max(
                  worst, std::fabs(want - batched[static_cast<size_t>((p * heads + h) * d + j)]));
            }
          }
        // |s| stays below 30, so e^s carries 30 * 2^-24 of relative error, twice (numerator and
        // sum).
        CHECK(worst < 2 * 60 * 6e-8 * 4);
      }
}

TEST_CASE("gated products and the head are those of matmul, gelu, softcap and a search") {
  for (const int threads : {1, 3}) {
    const auto backend = make_cpu_backend(threads, "");
    for (const DType type : {DType::kF32, DType::kF16, DType::kQ8_0, DType::kQ4_0, DType::kQ5_K})
      for (const int64_t m : {1, 3, 17}) {
        CAPTURE(threads);
        CAPTURE(m);
        const int64_t rows = 1490, cols = whole_blocks(
                                       type, 64);  // several groups of tiles, the last one not full
        const Weight a = make_weight(type, rows, cols, 11);
        const Weight b = make_weight(m == 3 ? DType::kF32 : type, rows, cols, 12);
        const auto gate = backend->load_matrix(a.source);
        const auto up = backend->load_matrix(b.source);
        const auto x = random_floats(m * cols, 13);
        const auto n = static_cast<size_t>(m * rows);
        std::vector<float> gates(n), ups(n), gated(n);
        backend->matmul({{gate.get(), at(x.data()), cols, m, at(gates.data()), rows},
                         {up.get(), at(x.data()), cols, m, at(ups.data()), rows}});
        backend->gated_matmul(
            {{gate.get(), up.get(), at(x.data()), cols, m, at(gated.data()), rows}});
        const gemtp_kernels& kernels = select_kernels("");
        std::vector<float> products = gates;
        kernels.gelu_mul(products.data(), ups.data(), m * rows, products.data());
        CHECK(gated == products);
        // With the other factor at hand, of rows that are wider.
        std::vector<float> wide(static_cast<size_t>(m * (rows + 5)));
        for (int64_t i = 0; i < m; ++i)
          std::copy_n(ups.begin() + i * rows, rows, wide.begin() + i * (rows + 5));
        backend->gated_matmul({{gate.get(), nullptr, at(x.data()), cols, m, at(gated.data()), rows,
                                at(wide.data()), rows + 5}});
        CHECK(gated == products);

        for (const float cap : {0.0f, 2.0f}) {
          std::vector<float> wanted = gates, logits(n);
          if (cap > 0) backend->softcap(at(wanted.data()), m * rows, cap);
          std::vector<BestLogit> best(static_cast<size_t>(m)), alone(best);
          std::vector<Device<float>> to(static_cast<size_t>(m)), nowhere(to);
          for (int64_t i = 0; i < m; ++i)
            if (i != 1) to[static_cast<size_t>(i)] = at(logits.data() + i * rows);
          backend->head(*gate, at(x.data()), m, cap, to, at(best.data()));
          backend->head(*gate, at(x.data()), m, cap, nowhere, at(alone.data()));
          if (m > 1) std::fill_n(wanted.begin() + rows, rows, 0.0f);
          CHECK(logits == wanted);
          wanted = gates;
          if (cap > 0) backend->softcap(at(wanted.data()), m * rows, cap);
          for (int64_t i = 0; i < m; ++i) {
            const float* row = wanted.data() + i * rows;
            const float* top = std::max_element(row, row + rows);  // the first of equal ones
            CHECK(best[static_cast<size_t>(i)].index == top - row);
            CHECK(best[static_cast<size_t>(i)].logit == *top);
            CHECK(alone[static_cast<size_t>(i)].index == top - row);
            CHECK(alone[static_cast<size_t>(i)].logit == *top);
          }
        }
      }
  }
}

TEST_CASE("head: the smallest index of equal logits, and damage before everything else") {
  const auto backend = make_cpu_backend(2, "");
  const int64_t rows = 5000, cols = 1;
  std::vector<float> w(static_cast<size_t>(rows), 1.0f);
  const auto best_of = [&](float x) {
    const auto matrix =
        backend->load_matrix({DType::kF32, rows, cols, reinterpret_cast<const uint8_t*>(w.data())});
    BestLogit best;
    const Device<float> nowhere;
    backend->head(*matrix, at(&x), 1, 0, {&nowhere, 1}, at(&best));
    return best;
  };
  w[4000] = w[4500] = w[4999] = 2.0f;
  CHECK(best_of(1.0f).index == 4000);
  w[0] = 2.0f;
  CHECK(best_of(1.0f).index == 0);
  w[3000] = 3e38f;  // times 2: infinite
  CHECK(best_of(2.0f).index == 3000);
  CHECK(best_of(2.0f).logit == std::numeric_limits<float>::infinity());
  w[4321] = 3e38f;
  CHECK(best_of(2.0f).index == 3000);
  CHECK(best_of(std::nanf("")).index == 0);
  CHECK(best_of(-std::numeric_limits<float>::infinity()).logit ==
        -std::numeric_limits<float>::infinity());
}
