// Passes through whole models, small ones with everything that Gemma 4's have, on the emulated GPU
// against the scalar kernels: what the backend makes of them, its recordings, and its launches.
#include <algorithm>
#include <optional>
#include <utility>

#include "backend/gpu/gpu_backend.h"
#include "flush_to_zero.h"
#include "gpu_testing.h"
#include "model/target.h"

namespace {

using namespace gemtp;
using gpu_testing::orders;
using kernel_testing::Random;

// Counts what the backend asks of a device.
class CountingDevice : public gpu::GpuDevice {
 public:
  explicit CountingDevice(const gpu::EmulatedOptions& options)
      : device_(gpu_testing::make_device(options)) {}

  int launches = 0, recordings = 0, repeats = 0;
  int64_t allocations = 0, fail_at = 0;  // the allocation that fails: 0, none

  std::string name() const override { return device_->name(); }
  Memory memory() const override { return device_->memory(); }
  uint64_t allocate(int64_t bytes) override {
    if (++allocations == fail_at) throw Error(ErrorKind::kMemory, "no more memory");
    return device_->allocate(bytes);
  }
  void release(uint64_t address) override { device_->release(address); }
  void* allocate_host(int64_t bytes) override { return device_->allocate_host(bytes); }
  void release_host(void* host) override { device_->release_host(host); }
  void write(uint64_t to, const void* from, int64_t n) override { device_->write(to, from, n); }
  void read(uint64_t from, void* to, int64_t n) override { device_->read(from, to, n); }
  void send(uint64_t to, const void* from, int64_t n) override { device_->send(to, from, n); }
  void fetch(uint64_t from, void* to, int64_t n) override { device_->fetch(from, to, n); }
  void launch(const std::string& kernel, int64_t blocks, int64_t rows, const void* arguments,
              int64_t bytes) override {
    ++launches;
    device_->launch(kernel, blocks, rows, arguments, bytes);
  }
  void wait() override { device_->wait(); }
  void begin_recording() override { device_->begin_recording(); }
  std::unique_ptr<gpu::Recording> end_recording() override {
    ++recordings;
    return device_->end_recording();
  }
  void repeat(gpu::Recording& recording) override {
    ++repeats;
    device_->repeat(recording);
  }
  int64_t quant_bytes() const override { return device_->quant_bytes(); }

 private:
  const std::shared_ptr<gpu::GpuDevice> device_;
};

// Weights as a file has them, made for each backend from one seed.
class Maker {
 public:
  Maker(uint64_t seed, Storage& storage) : random_(seed), storage_(storage) {}

  MatrixPtr matrix(DType type, int64_t rows, int64_t cols) {
    return storage_.load_matrix(source(type, rows, cols));
  }
  // Rows as blocks of Q4_0, a half and 32 nibbles each, or as floats.
  WeightSource source(DType type, int64_t rows, int64_t cols) {
    auto& bytes = *kept_.emplace_back(std::make_unique<std::vector<uint8_t>>());
    WeightSource out{type, rows, cols};
    bytes.resize(static_cast<size_t>(rows * out.row_bytes()));
    if (type == DType::kF32) {
      for (size_t i = 0; i < bytes.size(); i += 4) {
        const float v = number();
        std::memcpy(&bytes[i], &v, 4);
      }
    } else {
      REQUIRE(type == DType::kQ4_0);
      for (uint8_t& b : bytes) b = static_cast<uint8_t>(random_.below(256));
      for (size_t i = 0; i < bytes.size(); i += 18) {
        const uint16_t d = static_cast<uint16_t>(0x2400 + random_.below(0x400));  // 1/64 to 1/32
        std::memcpy(&bytes[i], &d, 2);
      }
    }
    out.data = bytes.data();
    return out;
  }
  Buffer vector(int64_t n) {
    Buffer out = storage_.alloc(n);
    std::vector<float> values;
    for (int64_t i = 0; i < n; ++i) values.push_back(number());
    storage_.write(values.data(), n, out.get());
    return out;
  }
  std::unique_ptr<MatrixSet> set(int64_t count, int64_t rows, int64_t cols) {
    std::vector<MatrixPtr> all;
    for (int64_t i = 0; i < count; ++i) {
      all.push_back(matrix(DType::kQ4_0, rows, cols));
      all.back()->scale = 0.5f + number() * number();
    }
    return storage_.make_set(std::move(all));
  }

 private:
  float number() { return static_cast<float>(random_.below(4096)) / 2048.0f - 1.0f; }

  Random random_;
  Storage& storage_;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> kept_;  // tables are read from here
};

// Like E2B: per-layer inputs, and layers that share K/V.
Config dense_config() {
  Config c;
  c.vocab = 100;
  c.hidden = 64;
  c.per_layer = 32;
  c.window = 8;
  c.softcap = 30;
  c.kv_layers = 2;
  c.layers = {{true, 4, 2, 32, 96, 0},
              {false, 4, 1, 64, 96, 1},
              {true, 4, 2, 32, 160, 0},
              {false, 4, 1, 64, 160, 1}};
  return c;
}

// Like 26B-A4B: experts, and keys that are the values of full layers.
Config expert_config() {
  Config c = dense_config();
  c.per_layer = 0;
  c.experts = 6;
  c.experts_used = 2;
  c.expert_ffn = 32;
  c.kv_layers = 3;
  c.layers = {{true, 4, 2, 32, 96, 0}, {false, 8, 2, 64, 96, 1}, {true, 4, 2, 32, 96, 2}};
  return c;
}

LayerWeights layer(Maker& make, const Config& c, int i) {
  const LayerConfig& l = c.layers[static_cast<size_t>(i)];
  constexpr DType kType = DType::kQ4_0;
  LayerWeights w;
  w.attn_norm = make.vector(c.hidden);
  w.q = make.matrix(kType, l.heads * l.head_dim, c.hidden);
  w.q_norm = make.vector(l.head_dim);
  if (i < c.kv_layers) {
    w.k = make.matrix(kType, l.kv_heads * l.head_dim, c.hidden);
    if (l.sliding || !c.experts) w.v = make.matrix(kType, l.kv_heads * l.head_dim, c.hidden);
    w.k_norm = make.vector(l.head_dim);
  }
  w.attn_output = make.matrix(kType, c.hidden, l.heads * l.head_dim);
  w.attn_post_norm = make.vector(c.hidden);
  w.ffn_norm = make.vector(c.hidden);
  w.ffn_post_norm = make.vector(c.hidden);
  w.ffn_gate = make.matrix(kType, l.ffn, c.hidden);
  w.ffn_up = make.matrix(kType, l.ffn, c.hidden);
  w.ffn_down = make.matrix(kType, c.hidden, l.ffn);
  if (c.experts) {
    w.moe = std::make_unique<ExpertWeights>();
    w.moe->router = make.matrix(DType::kF32, c.experts, c.hidden);
    for (Buffer* norm :
         {&w.moe->router_scale, &w.moe->dense_post_norm, &w.moe->pre_norm, &w.moe->post_norm})
      *norm = make.vector(c.hidden);
    w.moe->per_expert_scale = make.vector(c.experts);
    w.moe->experts = {make.set(c.experts, c.expert_ffn, c.hidden),
                      make.set(c.experts, c.expert_ffn, c.hidden),
                      make.set(c.experts, c.hidden, c.expert_ffn)};
  }
  if (c.per_layer) {
    w.ple_gate = make.matrix(kType, c.per_layer, c.hidden);
    w.ple_proj = make.matrix(kType, c.hidden, c.per_layer);
    w.ple_post_norm = make.vector(c.hidden);
  }
  w.output_scale = 0.75f;
  return w;
}

Weights weights(Maker& make, const Config& c) {
  Weights w;
  w.token_embedding = make.source(DType::kQ4_0, c.vocab, c.hidden);
  w.head = make.matrix(DType::kQ4_0, c.vocab, c.hidden);
  if (c.per_layer) {
    const int64_t all = c.n_layers() * c.per_layer, early = c.early_layers() * c.per_layer;
    w.per_layer_embedding = make.source(DType::kF32, c.vocab, all);
    w.ple_early_projection = make.matrix(DType::kF32, early, c.hidden);
    w.ple_late_projection = make.matrix(DType::kF32, all - early, c.hidden);
    w.ple_norm = make.vector(c.per_layer);
  }
  for (int i = 0; i < c.n_layers(); ++i) w.layers.push_back(layer(make, c, i));
  w.output_norm = make.vector(c.hidden);
  w.rope_factors.assign(32, 1.0f);
  return w;
}

// One part of a pass: rows of a sequence, and how many of them are wanted.
struct Part {
  int sequence;
  int64_t m, want;
};
using Pass = std::vector<Part>;

class Model {
 public:
  static constexpr int64_t kMostRows = 48, kContext = 512;

  Model(const Config& config, std::unique_ptr<Backend> backend)
      : config_(config),
        backend_(std::move(backend)),
        make_(7, *backend_),
        weights_(weights(make_, config_)),
        target_(std::in_place, config_, weights_, *backend_, kMostRows),
        outputs_{backend_->mirror<float>(kMostRows * config.hidden),
                 backend_->mirror<BestLogit>(kMostRows),
                 backend_->mirror<float>(kMostRows * config.vocab)} {
    for (int i = 0; i < 2; ++i)
      sequences_.emplace_back(config_, *backend_, kContext, kMostRows, true);
  }

  // The outputs of the wanted rows: hidden states, logits, and the best of them.
  std::vector<float> run(const Pass& pass) {
    std::vector<SequenceRows> rows;
    int64_t wanted = 0;
    for (const Part& part : pass) {
      KvCache& kv = sequences_[static_cast<size_t>(part.sequence)];
      ids_.resize(kContext);
      for (size_t i = 0; i < ids_.size(); ++i)
        ids_[i] = static_cast<int32_t>((i * 37 + 11) % static_cast<size_t>(config_.vocab));
      rows.push_back({&kv, ids_.data() + kv.length(), part.m, part.want, HeadOutput::kLogits});
      wanted += part.want;
    }
    target_->forward(rows, outputs_);
    std::vector<float> out(outputs_.hidden.host(),
                           outputs_.hidden.host() + wanted * config_.hidden);
    out.insert(out.end(), outputs_.logits.host(), outputs_.logits.host() + wanted * config_.vocab);
    for (int64_t i = 0; i < wanted; ++i) out.push_back(outputs_.best[i].logit);
    return out;
  }

  // Makes the target again; its recordings go with it.
  void renew() { target_.emplace(config_, weights_, *backend_, kMostRows); }

 private:
  const Config config_;
  const std::unique_ptr<Backend> backend_;
  Maker make_;
  const Weights weights_;
  std::optional<Target> target_;
  TargetOutputs outputs_;
  std::vector<KvCache> sequences_;
  std::vector<int32_t> ids_;
};

// A prompt in two chunks, single rows, drafts to verify, two sequences in one pass, a longer
// sequence, whose scores need more room.
const std::vector<Pass> kPasses = {
    {{0, 40, 0}},
    {{0, 5, 1}},
    {{0, 1, 1}},
    {{0, 1, 1}},
    {{0, 1, 1}},
    {{0, 4, 4}},
    {{0, 4, 4}},
    {{0, 4, 4}},
    {{1, 3, 1}},
    {{0, 1, 1}, {1, 3, 3}},
    {{1, 2, 2}, {0, 1, 1}},
    {{0, 1, 1}, {1, 3, 3}},
    {{0, 1, 1}, {1, 3, 3}},
    {{0, 48, 2}},
    {{0, 1, 1}},
    {{0, 1, 1}},
};

void check(const Config& config) {
  Model expected(config, make_cpu_backend(1, "scalar"));
  std::vector<std::vector<float>> outputs;
  for (const Pass& pass : kPasses) outputs.push_back(expected.run(pass));
  const Pass last = {{1, 2, 1}};
  outputs.push_back(expected.run(last));
  for (uint64_t seed = 0; seed < orders(); ++seed) {
    // Every other device takes subnormal numbers for zero, as Apple's GPUs do.
    std::optional<FlushToZero> on;
    if (seed % 2) on.emplace();
    auto device =
        std::make_unique<CountingDevice>(gpu::EmulatedOptions{seed, int64_t{1} << 30, seed == 0});
    const CountingDevice& counts = *device;
    Model model(config, make_gpu_backend(std::move(device), make_cpu_backend(1, "scalar")));
    for (size_t i = 0; i < kPasses.size(); ++i) {
      CAPTURE(i);
      CAPTURE(seed);
      CHECK(kernel_testing::same(model.run(kPasses[i]), outputs[i]));
    }
    model.renew();
    CHECK(kernel_testing::same(model.run(last), outputs.back()));
    // Of one row, of four, of two sequences, and of one row with longer spans.
    CHECK(counts.recordings == 4);
    CHECK(counts.repeats == 2 + 2 + 2 + 1);
  }
}

// Launches of the pass of one row, beside those which layers do not make.
int launches(const Config& config) {
  auto device = std::make_unique<CountingDevice>(gpu::EmulatedOptions{});
  const CountingDevice& counts = *device;
  Model model(config, make_gpu_backend(std::move(device), make_cpu_backend(1, "scalar")));
  model.run({{0, 1, 1}});
  const int before = counts.launches;
  model.run({{0, 1, 1}});
  return counts.launches - before;
}

}  // namespace

TEST_CASE("gpu passes: the CPU's bytes, recorded or not") {
  for (const Config& config : {dense_config(), expert_config()}) check(config);
}

TEST_CASE("gpu passes: memory that is used up ends a pass, and nothing else") {
  const Config config = expert_config();
  const std::vector<Pass> passes = {
      {{0, 40, 0}}, {{0, 1, 1}}, {{0, 1, 1}}, {{0, 1, 1}}, {{0, 4, 4}, {1, 3, 1}}};
  Model expected(config, make_cpu_backend(1, "scalar"));
  std::vector<std::vector<float>> outputs;
  for (const Pass& pass : passes) outputs.push_back(expected.run(pass));
  // A pass of each kind fails somewhere, and so does the making of a model.
  std::vector<int> failed(passes.size() + 1);
  for (int64_t n = 0, allocations = 0; n <= allocations; ++n) {  // at first none fails
    CAPTURE(n);
    const auto device = std::make_shared<CountingDevice>(gpu::EmulatedOptions{});
    const int64_t free = device->memory().free;
    device->fail_at = n;
    try {
      Model model(config, make_gpu_backend(device, make_cpu_backend(1, "scalar")));
      for (size_t i = 0; i < passes.size(); ++i) {
        std::vector<float> out;
        try {
          out = model.run(passes[i]);
        } catch (const Error& e) {
          REQUIRE(e.kind() == ErrorKind::kMemory);
          ++failed[i];
          out = model.run(passes[i]);
        }
        CHECK(kernel_testing::same(out, outputs[i]));
      }
      CHECK(device->memory().free < free);
    } catch (const Error& e) {
      REQUIRE(e.kind() == ErrorKind::kMemory);
      ++failed.back();
    }
    CHECK(device->memory().free == free);  // nothing is left
    allocations = std::max(allocations, device->allocations);
  }
  CHECK(failed.back() > 100);
  CHECK(failed[0] > 3);
  CHECK(failed[1] > 0);
}

TEST_CASE("gpu passes: what belongs to another device is noticed") {
  const Config config = dense_config();
  const auto one = make_gpu_backend(gpu::make_emulated_device(), make_cpu_backend(1, "scalar"));
  const auto other = make_gpu_backend(gpu::make_emulated_device(), make_cpu_backend(1, "scalar"));
  const Buffer x = one->alloc(64), w = one->alloc(64), theirs = other->alloc(64);
  one->norm(x.get(), 1, 64, 1e-6f, {{w.get(), x.get()}});
  CHECK_THROWS_AS(one->norm(theirs.get(), 1, 64, 1e-6f, {{w.get(), x.get()}}), Error);
  CHECK_THROWS_AS(one->norm(x.get(), 1, 64, 1e-6f, {{w.get(), theirs.get()}}), Error);
}

TEST_CASE("gpu passes: at most 12 launches a layer, 17 with experts") {
  // Two of the per-layer inputs' parts, the first norm, the head's three, and its copy.
  CHECK(launches(dense_config()) <= 4 * 12 + 2 * 2 + 1 + 3 + 1);
  CHECK(launches(expert_config()) <= 3 * 17 + 1 + 3 + 1);
}
