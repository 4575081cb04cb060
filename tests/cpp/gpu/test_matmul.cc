// Products on the emulated GPU against the scalar kernels, bit by bit.
#include <array>
#include <cmath>

#include "gpu_testing.h"

namespace {

using namespace gemtp;
using namespace gemtp::gpu_testing;
using kernel_testing::draw;
using kernel_testing::layout;
using kernel_testing::Matrix;
using kernel_testing::multiply;
using kernel_testing::same;

int64_t some_k(Random& random, gemtp_format format) {
  if (format <= GEMTP_BF16) return random.below(3) ? 1 + random.below(70) : 500 + random.below(900);
  const int64_t step = layout(format).k;
  return step * (1 + random.below(step == 32 ? 40 : 4));
}

int64_t strips(int64_t rows) { return (rows + 31) / 32; }

struct Inputs {
  Activations x;
  std::vector<float> floats;  // [m][k], flushed
  Inputs(Random& random, gemtp_format format, int64_t m, int64_t k)
      : x(random, m, k, Values::kMixed) {
    for (float& v : x.x) v = gemtp_flush(v);
    if (format > GEMTP_BF16) x.quantize();
    for (int64_t i = 0; i < m; ++i)
      floats.insert(floats.end(), x.x.begin() + i * x.stride, x.x.begin() + i * x.stride + k);
  }
  void upload(TestDevice& device, gemtp_format format, int64_t panel, MatmulArguments& a) const {
    a.k = static_cast<int32_t>(x.k);
    a.m = static_cast<int32_t>(x.m);
    if (format > GEMTP_BF16) {
      a.x = quantized(x).upload(device, panel * x.k / 32);
    } else {
      const auto to = device.allocate<float>((x.m + panel) * x.k);
      device.write(to, floats.data(), static_cast<int64_t>(floats.size()));
      a.x_float = to;
    }
  }
};

std::vector<float> scaled(std::vector<float> y, float scale) {
  for (float& v : y) v = gemtp_flush(v * scale);
  return y;
}

void check_plain(Random& random, gemtp_format format, const MatmulKernel& kernel, int64_t m) {
  const int64_t rows = 1 + random.below(100), k = some_k(random, format);
  const Matrix first(random, format, rows, k, Values::kMixed);
  const Matrix second(random, format, 1 + random.below(40), k, Values::kMixed);
  const Inputs in(random, format, m, k);
  const auto all = multiply(gemtp_kernels_scalar, first, in.x, 0, (rows + 15) / 16, rows);
  const auto rest =
      multiply(gemtp_kernels_scalar, second, in.x, 0, (second.rows + 15) / 16, second.rows);
  // The last makes results of about the first one's size so small that they are flushed.
  const float tiny = rest[0] != 0 ? std::fabs(0x1p-40f / rest[0]) : 1.0f;
  const float scale = std::array{1.0f, 0.37f, tiny}[static_cast<size_t>(random.below(3))];
  for (uint64_t seed = 0; seed < orders(); ++seed) {
    TestDevice device(seed);
    MatmulArguments a{};
    in.upload(device, format, kernel.panel, a);
    a.matrix[0] = upload(device, first);
    a.matrix[1] = upload(device, second, scale);
    a.y[0] = device.allocate<float>(m * rows);
    a.y[1] = device.allocate<float>(m * second.rows);
    a.strips = static_cast<int32_t>(strips(rows) + strips(second.rows));
    const bool many = kernel.name.find("many") != std::string::npos;
    device.launch(kernel.name, many ? (a.strips + 3) / 4 : a.strips,
                  (m + kernel.panel - 1) / kernel.panel, a);
    CAPTURE(kernel.name);
    CAPTURE(rows);
    CAPTURE(k);
    CAPTURE(m);
    CAPTURE(seed);
    CHECK(same(device.download(a.y[0], m * rows), all));
    CHECK(same(device.download(a.y[1], m * second.rows), scaled(rest, scale)));
  }
}

}  // namespace

TEST_CASE("gpu matmul: every format and number of rows") {
  Random random(1);
  for (const gemtp_format format : formats())
    for (const int64_t m : {1, 2, 3, 4, 5, 8, 9, 16, 21})
      check_plain(random, format, matmul_kernel(format, m), m);
}

TEST_CASE("gpu matmul: many rows") {
  Random random(2);
  for (const gemtp_format format : formats()) {
    if (format <= GEMTP_BF16) continue;
    for (const int64_t m : {17, 32, 70})
      check_plain(random, format,
                  {std::string("matmul_") + kFormatNames[format] + "_many", kManyRows}, m);
  }
}

TEST_CASE("gpu matmul: gated, its results quantized") {
  Random random(3);
  for (const gemtp_format format : formats())
    for (const int64_t m : {1, 2, 4, 7, 13}) {
      const int64_t rows = 32 * (1 + random.below(3)), k = some_k(random, format);
      const Matrix gate(random, format, rows, k, Values::kMixed);
      Matrix up(random, format, rows, k, Values::kMixed);
      std::memcpy(up.table, gate.table, sizeof up.table);
      const Inputs in(random, format, m, k);
      auto expected = multiply(gemtp_kernels_scalar, gate, in.x, 0, rows / 16, rows);
      const auto ups = multiply(gemtp_kernels_scalar, up, in.x, 0, rows / 16, rows);
      const auto factor = draw(random, m * rows, Values::kMixed);
      auto by_factor = expected;
      gemtp_kernels_scalar.gelu_mul(expected.data(), ups.data(), m * rows, expected.data());
      gemtp_kernels_scalar.gelu_mul(by_factor.data(), factor.data(), m * rows, by_factor.data());
      for (uint64_t seed = 0; seed < orders(); ++seed)
        for (const bool known : {false, true}) {
          TestDevice device(seed);
          const MatmulKernel kernel = matmul_kernel(format, m, known ? "_factor" : "_gated");
          MatmulArguments a{};
          in.upload(device, format, kernel.panel, a);
          a.matrix[0] = upload(device, gate);
          a.matrix[1] = upload(device, up);
          a.factor = device.upload(factor);
          a.factor_stride = rows;
          if (random.below(2)) a.y[0] = device.allocate<float>(m * rows);
          const QuantizedResult q(device, m * rows / 32);
          a.quantized = q.rows;
          device.launch(kernel.name, strips(rows), 1, a);
          CAPTURE(kernel.name);
          CAPTURE(k);
          CAPTURE(m);
          const auto& y = known ? by_factor : expected;
          if (a.y[0]) CHECK(same(device.download(a.y[0], m * rows), y));
          CHECK(q.equals(device, quantized(y.data(), m, rows, rows)));
        }
    }
}

TEST_CASE("gpu matmul: a list of matrices") {
  Random random(4);
  for (const gemtp_format format : {GEMTP_Q4_0, GEMTP_Q6_K, GEMTP_F32}) {
    const int64_t rows = 40, k = 512, matrices = 5, slots = 9;
    std::vector<std::unique_ptr<Matrix>> w;
    for (int64_t i = 0; i < matrices; ++i) {
      w.push_back(std::make_unique<Matrix>(random, format, rows, k, Values::kMixed));
      if (i) std::memcpy(w.back()->table, w[0]->table, 16);
    }
    const Inputs in(random, format, slots, k);
    const std::vector<MatrixRows> list = {{3, 0, 2}, {0, 2, 1}, {4, 3, 6}, {0, 0, 0}};
    for (uint64_t seed = 0; seed < orders(); ++seed)
      for (const int step : {0, 1}) {
        TestDevice device(seed);
        MatmulArguments a{};
        const MatmulKernel kernel = matmul_kernel(format, 4);
        in.upload(device, format, kernel.panel, a);
        a.matrix[0] = upload(device, *w[0]);
        std::vector<SetMember> members;
        for (const auto& matrix : w)
          members.push_back({upload(device, *matrix).tiles, members.empty() ? 1.0f : 0.75f});
        a.set[0] = device.upload(members);
        a.list = device.upload(list);
        a.x_step = step;
        a.y[0] = device.allocate<float>(slots * rows);
        device.launch(kernel.name, static_cast<int64_t>(list.size()) * 2, 2, a);
        const auto y = device.download(a.y[0], slots * rows);
        for (const MatrixRows& entry : list)
          for (int64_t i = entry.first; i < entry.first + entry.count; ++i) {
            const int64_t x_row = step ? i : i - entry.first;
            const auto all = multiply(gemtp_kernels_scalar, *w[static_cast<size_t>(entry.matrix)],
                                      in.x, 0, 3, rows);
            std::vector<float> expected(all.begin() + x_row * rows,
                                        all.begin() + (x_row + 1) * rows);
            if (entry.matrix > 0)
              gemtp_kernels_scalar.scale(expected.data(), 0.75f, rows, expected.data());
            CHECK(same({y.begin() + i * rows, y.begin() + (i + 1) * rows}, expected));
          }
      }
  }
}
