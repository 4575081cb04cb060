// A whole layer on the emulated GPU, in the launches that a backend would make of it, against
// layer_forward() on the CPU.
#include <cmath>
#include <optional>

#include "backend/cpu/pack.h"
#include "backend/cpu/packed_form.h"
#include "flush_to_zero.h"
#include "gpu_testing.h"
#include "host_memory.h"
#include "model/layer.h"

namespace {

using namespace gemtp;
using namespace gemtp::gpu_testing;
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

// A matrix of Q4_0 as a file has it, and as both backends do.
struct Weight {
  std::vector<uint8_t> bytes;
  WeightSource source;

  Weight(Random& random, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows * cols / 32; ++i) {
      const uint16_t d = gemtp_f32_to_f16(random.real(-0.05f, 0.05f));
      bytes.push_back(static_cast<uint8_t>(d));
      bytes.push_back(static_cast<uint8_t>(d >> 8));
      for (int j = 0; j < 16; ++j) bytes.push_back(static_cast<uint8_t>(random.bits()));
    }
    source.type = DType::kQ4_0;
    source.rows = rows;
    source.cols = cols;
    source.data = bytes.data();
  }
  PackedMatrix upload(TestDevice& device) const {
    const int64_t tiles = (source.rows + 15) / 16, size = tile_bytes(source.type, source.cols);
    kernel_testing::Aligned<uint8_t> packed(tiles * size);
    for (int64_t t = 0; t < tiles; ++t) {
      const uint8_t* rows[GEMTP_TILE] = {};
      for (int64_t r = 0; r < 16 && t * 16 + r < source.rows; ++r)
        rows[r] = source.data + (t * 16 + r) * source.row_bytes();
      pack_tile(source.type, source.cols, rows, packed.get() + t * size);
    }
    PackedMatrix out{};
    out.tiles = device.upload(packed.get(), tiles * size);
    out.tile_bytes = size;
    out.rows = static_cast<int32_t>(source.rows);
    out.scale = 1.0f;
    return out;
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

// x behind the layer, as the CPU's backend has it.
std::vector<float> on_cpu(const Layer& l, const Rows& rows) {
  const auto backend = make_cpu_backend(1, "scalar");
  const auto buffer = [&](const std::vector<float>& from) {
    Buffer b = backend->alloc(static_cast<int64_t>(from.size()));
    backend->write(from.data(), static_cast<int64_t>(from.size()), b.get());
    return b;
  };
  const auto matrix = [&](const Weight& w) { return backend->load_matrix(w.source); };
  Config config;
  config.hidden = kHidden;
  config.per_layer = kPerLayer;
  config.eps = kEps;
  config.kv_layers = 1;
  config.layers = {{false, kHeads, kKvHeads, kDim, kFfn, 0}};
  LayerWeights w;
  w.q = matrix(l.q);
  w.k = matrix(l.k);
  w.v = matrix(l.v);
  w.attn_output = matrix(l.attn_output);
  w.ffn_gate = matrix(l.gate);
  w.ffn_up = matrix(l.up);
  w.ffn_down = matrix(l.down);
  w.ple_model_proj = matrix(l.ple_model_proj);
  w.ple_gate = matrix(l.ple_gate);
  w.ple_proj = matrix(l.ple_proj);
  w.attn_norm = buffer(l.attn_norm);
  w.q_norm = buffer(l.q_norm);
  w.k_norm = buffer(l.k_norm);
  w.attn_post_norm = buffer(l.attn_post_norm);
  w.ffn_norm = buffer(l.ffn_norm);
  w.ffn_post_norm = buffer(l.ffn_post_norm);
  w.ple_post_norm = buffer(l.ple_post_norm);
  w.output_scale = kOutputScale;
  Weights weights;
  weights.ple_norm = buffer(l.ple_norm);
  weights.per_layer_embedding.type = DType::kF32;
  weights.per_layer_embedding.rows = kVocab;
  weights.per_layer_embedding.cols = kPerLayer;
  weights.per_layer_embedding.data = reinterpret_cast<const uint8_t*>(rows.table.data());

  OneSequence sequence(*backend, backend->make_kv(kKvHeads, kDim, kCapacity, true));
  sequence.store(rows.old_k, rows.old_v, 0, kBehind);
  PassRows pass_rows(*backend, rows.m, kDim / 2, 0);
  pass_rows.count = rows.m;
  pass_rows.kv = {sequence.layers()};
  for (int64_t i = 0; i < rows.m; ++i) {
    pass_rows.ids[i] = rows.ids[static_cast<size_t>(i)];
    pass_rows.positions[i] = static_cast<int32_t>(kBehind + i);
    pass_rows.full.spans[i] = span(0, kBehind + i);
  }
  std::copy(rows.cos.begin(), rows.cos.end(), pass_rows.full.angles.cos.host());
  std::copy(rows.sin.begin(), rows.sin.end(), pass_rows.full.angles.sin.host());
  const Buffer embedded = buffer(rows.embedded), x = buffer(rows.x);
  LayerPass pass{pass_rows, 0, rows.m, rows.m};
  pass.embedded = embedded.get();
  pass.weights = &weights;
  pass.owns_kv = true;
  LayerScratch scratch(config, *backend, rows.m);
  layer_forward(config, w, pass, scratch, *backend, x.get());
  std::vector<float> out(static_cast<size_t>(rows.m * kHidden));
  backend->read(Device<const float>(x.get()), rows.m * kHidden, out.data());
  return out;
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
  Global<const float> upload(const std::vector<float>& x) { return device_.upload(x); }

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
    a.weight = upload(weight);
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
    first.output[0] = {upload(l_.attn_norm), 1.0f, 1, {}, normed_};
    launch("norm", m_, 1, first);

    const QuantizedRows embedded = quants(kHidden);
    ElementsArguments q{};
    q.x = upload(rows_.embedded);
    q.n = static_cast<int32_t>(m_ * kHidden);
    q.quantized = embedded;
    launch("quantize", (m_ * kHidden + 255) / 256, 1, q);
    MatmulArguments project = product(embedded, kHidden);
    project.matrix[0] = l_.ple_model_proj.upload(device_);
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
    finish.weight = upload(l_.ple_norm);
    finish.residual = upload(table);
    finish.before = 1.0f / std::sqrt(static_cast<float>(kHidden));
    finish.after = 0.70710678118654752f;
    finish.y = ple_input_;
    launch("norm", m_, 1, finish);
  }

  void attention() {
    MatmulArguments qkv = product(normed_, kHidden);
    const Weight* weights[] = {&l_.q, &l_.k, &l_.v};
    for (int i = 0; i < 3; ++i) {
      qkv.matrix[i] = weights[i]->upload(device_);
      qkv.y[i] = floats(weights[i]->source.rows);
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
    heads.q_weight = upload(l_.q_norm);
    heads.k_weight = upload(l_.k_norm);
    heads.cos = upload(rows_.cos);
    heads.sin = upload(rows_.sin);
    heads.positions = device_.upload(positions);
    heads.kv = gpu_testing::upload(device_, kv);
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
    out.matrix[0] = l_.attn_output.upload(device_);
    out.y[0] = branch_;
    multiply(out);
    NormArguments joined = join(l_.attn_post_norm);
    joined.output[0].weight = upload(l_.ffn_norm);
    launch("norm", m_, 1, joined);
  }

  void feed_forward() {
    MatmulArguments gated = product(normed_, kHidden);
    gated.matrix[0] = l_.gate.upload(device_);
    gated.matrix[1] = l_.up.upload(device_);
    gated.quantized = quants(kFfn);
    multiply(gated, "_gated");
    MatmulArguments down = product(gated.quantized, kFfn);
    down.matrix[0] = l_.down.upload(device_);
    down.y[0] = branch_;
    multiply(down);
    launch("norm", m_, 1, join(l_.ffn_post_norm));  // then x itself, quantized
  }

  void per_layer_input() {
    MatmulArguments gate = product(normed_, kHidden);
    gate.matrix[0] = l_.ple_gate.upload(device_);
    gate.factor = ple_input_;
    gate.factor_stride = kPerLayer;
    gate.quantized = quants(kPerLayer);
    multiply(gate, "_factor");
    MatmulArguments project = product(gate.quantized, kPerLayer);
    project.matrix[0] = l_.ple_proj.upload(device_);
    project.y[0] = branch_;
    multiply(project);
    NormArguments joined = join(l_.ple_post_norm);
    joined.after = kOutputScale;
    joined.output[0].weight = upload(l_.next_norm);
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
