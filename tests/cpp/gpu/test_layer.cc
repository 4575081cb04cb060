// A whole layer on the emulated GPU, in the launches that a backend would make of it, against the
// scalar kernels.
#include <cmath>
#include <optional>

#include "flush_to_zero.h"
#include "gpu_testing.h"

namespace {

using namespace gemtp::gpu_testing;
using gemtp::FlushToZero;
namespace kernel_testing = gemtp::kernel_testing;
using kernel_testing::draw;
using kernel_testing::same;

// Sizes of a small layer with everything that E2B's have.
constexpr int64_t kHidden = 96, kHeads = 4, kKvHeads = 2, kDim = 32, kFfn = 160, kPerLayer = 64;
constexpr int64_t kVocab = 10, kCapacity = 48, kBehind = 20;
constexpr float kEps = 1e-6f, kOutputScale = 0.75f;

std::vector<float> values(Random& random, int64_t n) {
  auto x = draw(random, n, Values::kPlain);
  for (float& v : x) v = gemtp_flush(v);
  return x;
}

struct Weight : kernel_testing::Matrix {
  Weight(Random& random, int64_t n, int64_t cols)
      : Matrix(random, GEMTP_Q4_0, n, cols, Values::kPlain) {}
  std::vector<float> times(const std::vector<float>& x) const {
    Random any(1);
    Activations rows(any, static_cast<int64_t>(x.size()) / k, k, Values::kPlain);
    for (int64_t i = 0; i < rows.m; ++i)
      std::copy_n(x.begin() + i * k, k, rows.x.begin() + i * rows.stride);
    rows.quantize();
    return multiply(gemtp_kernels_scalar, *this, rows, 0, (this->rows + 15) / 16, this->rows);
  }
};

struct Layer {
  Weight q, k, v, attn_output, gate, up, down, ple_model_proj, ple_gate, ple_proj;
  std::vector<float> attn_norm, q_norm, k_norm, attn_post_norm, ffn_norm, ffn_post_norm, ple_norm,
      ple_post_norm, next_norm;

  explicit Layer(Random& r)
      : q(r, kHeads * kDim, kHidden),
        k(r, kKvHeads * kDim, kHidden),
        v(r, kKvHeads * kDim, kHidden),
        attn_output(r, kHidden, kHeads * kDim),
        gate(r, kFfn, kHidden),
        up(r, kFfn, kHidden),
        down(r, kHidden, kFfn),
        ple_model_proj(r, kPerLayer, kHidden),
        ple_gate(r, kPerLayer, kHidden),
        ple_proj(r, kHidden, kPerLayer),
        attn_norm(values(r, kHidden)),
        q_norm(values(r, kDim)),
        k_norm(values(r, kDim)),
        attn_post_norm(values(r, kHidden)),
        ffn_norm(values(r, kHidden)),
        ffn_post_norm(values(r, kHidden)),
        ple_norm(values(r, kPerLayer)),
        ple_post_norm(values(r, kHidden)),
        next_norm(values(r, kHidden)) {}
};

struct Rows {
  int64_t m;
  std::vector<float> x, embedded, table, cos, sin, old_k, old_v;
  std::vector<int32_t> ids;
  explicit Rows(Random& r, int64_t n)
      : m(n),
        x(values(r, n * kHidden)),
        embedded(values(r, n * kHidden)),
        table(values(r, kVocab * kPerLayer)),
        cos(values(r, n * kDim / 2)),
        sin(values(r, n * kDim / 2)),
        old_k(values(r, kBehind * kKvHeads * kDim)),
        old_v(values(r, kBehind * kKvHeads * kDim)) {
    for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(r.below(kVocab)));
  }
};

// The same operations by the scalar kernels, in the order of model/layer.cc.
const gemtp_kernels& scalar = gemtp_kernels_scalar;

// Of rows as wide as the weight; added to a residual if there is one.
std::vector<float> norm(std::vector<float> x, const std::vector<float>* weight, int64_t n,
                        const std::vector<float>* residual = nullptr) {
  for (size_t i = 0; i < x.size(); i += static_cast<size_t>(n)) {
    if (residual)
      scalar.rms_norm_add(&x[i], weight->data(), n, kEps, &(*residual)[i], &x[i]);
    else
      scalar.rms_norm(&x[i], weight ? weight->data() : nullptr, n, kEps, &x[i]);
  }
  return x;
}
std::vector<float> scaled(std::vector<float> x, float by) {
  scalar.scale(x.data(), by, static_cast<int64_t>(x.size()), x.data());
  return x;
}
std::vector<float> gated(std::vector<float> gate, const std::vector<float>& up) {
  scalar.gelu_mul(gate.data(), up.data(), static_cast<int64_t>(up.size()), gate.data());
  return gate;
}
std::vector<float> rotated(std::vector<float> x, const Rows& rows, int64_t heads) {
  for (int64_t i = 0; i < rows.m * heads; ++i)
    scalar.rope(&x[static_cast<size_t>(i * kDim)],
                &rows.cos[static_cast<size_t>(i / heads * kDim / 2)],
                &rows.sin[static_cast<size_t>(i / heads * kDim / 2)], kDim);
  return x;
}

std::vector<float> attended(const Rows& rows, const std::vector<float>& q,
                            const std::vector<float>& k, const std::vector<float>& v) {
  std::vector<float> out(q.size());
  for (int64_t h = 0; h < kKvHeads; ++h) {
    Random any(1);
    kernel_testing::Cache cache(any, true, kDim, kCapacity, 0, 0);
    const auto store = [&](int64_t t, const float* key, const float* value) {
      for (int64_t i = 0; i < kDim; ++i) {
        cache.put(cache.keys, (t / 16 * kDim + i) * 16 + t % 16, key[i]);
        cache.put(cache.values, (i / 16 * kCapacity + t) * 16 + i % 16, value[i]);
      }
    };
    for (int64_t t = 0; t < kBehind + rows.m; ++t) {
      const bool old = t < kBehind;
      const auto at = static_cast<size_t>(((old ? t : t - kBehind) * kKvHeads + h) * kDim);
      store(t, old ? &rows.old_k[at] : &k[at], old ? &rows.old_v[at] : &v[at]);
    }
    for (int64_t i = 0; i < rows.m; ++i)
      for (int64_t g = h * kHeads / kKvHeads; g < (h + 1) * kHeads / kKvHeads; ++g) {
        const int64_t at = (i * kHeads + g) * kDim;
        const auto one =
            attend(scalar, cache, {q.begin() + at, q.begin() + at + kDim}, {{0, kBehind + i}});
        std::copy_n(one.begin(), kDim, out.begin() + at);
      }
  }
  return out;
}

// x behind the layer.
std::vector<float> on_cpu(const Layer& l, const Rows& rows) {
  std::vector<float> table;
  for (const int32_t id : rows.ids)
    table.insert(table.end(), rows.table.begin() + id * kPerLayer,
                 rows.table.begin() + (id + 1) * kPerLayer);
  table = scaled(table, std::sqrt(static_cast<float>(kPerLayer)));
  const auto projected =
      scaled(l.ple_model_proj.times(rows.embedded), 1.0f / std::sqrt(static_cast<float>(kHidden)));
  const auto input = scaled(norm(projected, &l.ple_norm, kPerLayer, &table), 0.70710678118654752f);

  const auto normed = norm(rows.x, &l.attn_norm, kHidden);
  const auto q = rotated(norm(l.q.times(normed), &l.q_norm, kDim), rows, kHeads);
  const auto k = rotated(norm(l.k.times(normed), &l.k_norm, kDim), rows, kKvHeads);
  const auto v = norm(l.v.times(normed), nullptr, kDim);
  auto x = norm(l.attn_output.times(attended(rows, q, k, v)), &l.attn_post_norm, kHidden, &rows.x);
  const auto inner = norm(x, &l.ffn_norm, kHidden);
  const auto wide = gated(l.gate.times(inner), l.up.times(inner));
  x = norm(l.down.times(wide), &l.ffn_post_norm, kHidden, &x);
  const auto branch = l.ple_proj.times(gated(l.ple_gate.times(x), input));
  return scaled(norm(branch, &l.ple_post_norm, kHidden, &x), kOutputScale);
}

// The launches of a layer for up to 16 rows.
class GpuLayer {
 public:
  GpuLayer(uint64_t seed, const Layer& l, const Rows& rows)
      : device_(seed),
        l_(l),
        rows_(rows),
        m_(rows.m),
        x_(device_.upload(rows.x)),
        branch_(floats(kHidden)),
        normed_(quants(kHidden)) {}

  std::vector<float> run() {
    begin_pass();
    launches_ = 0;
    attention();
    feed_forward();
    per_layer_input();
    CHECK(launches_ <= 12);
    return device_.download(x_, m_ * kHidden);
  }
  /// What the next layer begins with.
  bool next_is(const HostQuantized& expected) const {
    return QuantizedResult(normed_).equals(device_, expected);
  }

 private:
  Global<float> floats(int64_t n) { return device_.allocate<float>(m_ * n); }
  // With room for a panel behind the rows.
  QuantizedRows quants(int64_t n) {
    return device_.upload(std::vector<uint8_t>(
        static_cast<size_t>((m_ + 16) * n / 32 * HostQuantized::block_bytes())));
  }
  Global<const float> floats_of(const std::vector<float>& x) { return device_.upload(x); }

  template <class Arguments>
  void launch(const std::string& kernel, int64_t blocks, int64_t rows, const Arguments& a) {
    device_.launch(kernel, blocks, rows, a);
    ++launches_;
  }
  MatmulArguments product(QuantizedRows x, int64_t k) const {
    MatmulArguments a{};
    a.x = x;
    a.k = static_cast<int32_t>(k);
    a.m = static_cast<int32_t>(m_);
    return a;
  }
  void multiply(const MatmulArguments& a, const char* activation = "") {
    int64_t strips = 0;
    const int64_t matrices = *activation ? 1 : 4;
    for (int64_t i = 0; i < matrices; ++i) strips += (a.matrix[i].rows + 31) / 32;
    launch(matmul_kernel(GEMTP_Q4_0, m_, activation).name, strips, 1, a);
  }
  // x += the norm of branch_; behind it what comes next.
  NormArguments join(const std::vector<float>& weight) {
    NormArguments a{};
    a.n = kHidden;
    a.eps = kEps;
    a.branch = branch_;
    a.weight = floats_of(weight);
    a.residual = x_;
    a.before = a.after = 1.0f;
    a.y = x_;
    a.output[0].wanted = 1;
    a.output[0].scale = 1.0f;
    a.output[0].quantized = normed_;
    return a;
  }

  // Once for all layers: the first norm, and the per-layer inputs.
  void begin_pass() {
    NormArguments first{};
    first.n = kHidden;
    first.eps = kEps;
    first.residual = x_;
    first.after = 1.0f;
    first.output[0] = {floats_of(l_.attn_norm), 1.0f, 1, {}, normed_};
    launch("norm", m_, 1, first);

    const QuantizedRows embedded = quants(kHidden);
    ElementsArguments q{};
    q.x = floats_of(rows_.embedded);
    q.n = static_cast<int32_t>(m_ * kHidden);
    q.quantized = embedded;
    launch("quantize", (m_ * kHidden + 255) / 256, 1, q);
    MatmulArguments project = product(embedded, kHidden);
    project.matrix[0] = upload(device_, l_.ple_model_proj);
    project.y[0] = ple_input_ = floats(kPerLayer);
    multiply(project);
    std::vector<float> table;  // the host's, from the file
    for (const int32_t id : rows_.ids)
      for (int64_t i = 0; i < kPerLayer; ++i)
        table.push_back(gemtp_flush(rows_.table[static_cast<size_t>(id * kPerLayer + i)] *
                                    std::sqrt(static_cast<float>(kPerLayer))));
    NormArguments finish{};
    finish.n = kPerLayer;
    finish.eps = kEps;
    finish.branch = ple_input_;
    finish.weight = floats_of(l_.ple_norm);
    finish.residual = floats_of(table);
    finish.before = 1.0f / std::sqrt(static_cast<float>(kHidden));
    finish.after = 0.70710678118654752f;
    finish.y = ple_input_;
    launch("norm", m_, 1, finish);
  }

  void attention() {
    MatmulArguments qkv = product(normed_, kHidden);
    const Weight* weights[] = {&l_.q, &l_.k, &l_.v};
    for (int i = 0; i < 3; ++i) {
      qkv.matrix[i] = upload(device_, *weights[i]);
      qkv.y[i] = floats(weights[i]->rows);
    }
    multiply(qkv);

    HostKv kv(kKvHeads, kDim, kCapacity, true);
    for (int64_t t = 0; t < kBehind; ++t)
      for (int64_t h = 0; h < kKvHeads; ++h)
        kv.store(h, t, &rows_.old_k[static_cast<size_t>((t * kKvHeads + h) * kDim)],
                 &rows_.old_v[static_cast<size_t>((t * kKvHeads + h) * kDim)]);
    std::vector<int32_t> positions;
    std::vector<Span> spans;
    for (int64_t i = 0; i < m_; ++i) {
      positions.push_back(static_cast<int32_t>(kBehind + i));
      spans.push_back({0, positions.back()});
    }
    HeadsArguments heads{};
    heads.q = qkv.y[0];
    heads.k = qkv.y[1];
    heads.v = qkv.y[2];
    heads.q_weight = floats_of(l_.q_norm);
    heads.k_weight = floats_of(l_.k_norm);
    heads.cos = floats_of(rows_.cos);
    heads.sin = floats_of(rows_.sin);
    heads.positions = device_.upload(positions);
    heads.kv = upload(device_, kv);
    heads.heads = kHeads;
    heads.kv_heads = kKvHeads;
    heads.d = kDim;
    heads.eps = kEps;
    launch("heads_f16", kHeads + 2 * kKvHeads, m_, heads);

    AttentionArguments a{};
    a.q = qkv.y[0];
    a.spans = device_.upload(spans);
    a.kv = heads.kv;
    a.m = static_cast<int32_t>(m_);
    a.heads = kHeads;
    a.kv_heads = kKvHeads;
    a.d = kDim;
    a.p_stride = 128;
    a.p = floats(kHeads * a.p_stride);
    a.maxima = floats(kHeads);
    a.quantized = quants(kHeads * kDim);
    const int64_t tiles = (m_ * kHeads / kKvHeads + 7) / 8;
    launch("attention_scores_f16_8", 1, kKvHeads * tiles, a);
    launch("attention_values_f16_8", (kDim + 31) / 32, kKvHeads * tiles, a);

    MatmulArguments out = product(a.quantized, kHeads * kDim);
    out.matrix[0] = upload(device_, l_.attn_output);
    out.y[0] = branch_;
    multiply(out);
    NormArguments joined = join(l_.attn_post_norm);
    joined.output[0].weight = floats_of(l_.ffn_norm);
    launch("norm", m_, 1, joined);
  }

  void feed_forward() {
    MatmulArguments gated = product(normed_, kHidden);
    gated.matrix[0] = upload(device_, l_.gate);
    gated.matrix[1] = upload(device_, l_.up);
    gated.quantized = quants(kFfn);
    multiply(gated, "_gated");
    MatmulArguments down = product(gated.quantized, kFfn);
    down.matrix[0] = upload(device_, l_.down);
    down.y[0] = branch_;
    multiply(down);
    launch("norm", m_, 1, join(l_.ffn_post_norm));  // then x itself, quantized
  }

  void per_layer_input() {
    MatmulArguments gate = product(normed_, kHidden);
    gate.matrix[0] = upload(device_, l_.ple_gate);
    gate.factor = ple_input_;
    gate.factor_stride = kPerLayer;
    gate.quantized = quants(kPerLayer);
    multiply(gate, "_factor");
    MatmulArguments project = product(gate.quantized, kPerLayer);
    project.matrix[0] = upload(device_, l_.ple_proj);
    project.y[0] = branch_;
    multiply(project);
    NormArguments joined = join(l_.ple_post_norm);
    joined.after = kOutputScale;
    joined.output[0].weight = floats_of(l_.next_norm);
    launch("norm", m_, 1, joined);
  }

  TestDevice device_;
  const Layer& l_;
  const Rows& rows_;
  int64_t m_;
  Global<float> x_, branch_, ple_input_;
  QuantizedRows normed_;
  int launches_ = 0;
};

}  // namespace

TEST_CASE("gpu layer: in 12 launches what the CPU does") {
  Random random(41);
  for (const int64_t m : {1, 3, 8, 13}) {
    const Layer layer(random);
    const Rows rows(random, m);
    const auto expected = on_cpu(layer, rows);
    auto next = expected;
    for (int64_t i = 0; i < m; ++i)
      gemtp_kernels_scalar.rms_norm(&next[static_cast<size_t>(i * kHidden)], layer.next_norm.data(),
                                    kHidden, kEps, &next[static_cast<size_t>(i * kHidden)]);
    for (uint64_t seed = 0; seed < orders(); ++seed) {
      // Every other device takes subnormal numbers for zero, as Apple's GPUs do.
      std::optional<FlushToZero> on;
      if (seed % 2) on.emplace();
      GpuLayer gpu(seed, layer, rows);
      CAPTURE(m);
      CHECK(same(gpu.run(), expected));
      CHECK(gpu.next_is(quantized(next.data(), m, kHidden, kHidden)));
    }
  }
}
