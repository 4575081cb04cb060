// Passes through whole models, small ones with everything that Gemma 4's have, on the emulated GPU
// against the scalar kernels: what the backend makes of them, its recordings, and its launches.
#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "backend/gpu/gpu_backend.h"
#include "engine/random_model.h"
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
  std::string identity() const override { return device_->identity(); }
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

// One part of a pass: rows of a sequence, and how many of them are wanted.
struct Part {
  int sequence;
  int64_t m, want;
};
using Pass = std::vector<Part>;

using Make = RandomModel (*)(gemtp_format, Split<Storage>);

class Model {
 public:
  static constexpr int64_t kMostRows = 48, kContext = 512;

  Model(Make make, std::unique_ptr<Backend> backend, Placement placement = {})
      : backend_(std::move(backend)),
        backends_(*backend_, backend_->host(), placement),
        model_(make(GEMTP_Q4_0, backends_)),
        config_(model_.config),
        target_(std::in_place, config_, model_.weights, backends_, kMostRows),
        outputs_{backend_->mirror<float>(kMostRows * config_.hidden),
                 backend_->mirror<BestLogit>(kMostRows),
                 backend_->mirror<float>(kMostRows * config_.vocab)} {
    for (int i = 0; i < 2; ++i)
      sequences_.emplace_back(config_, backends_, kContext, kMostRows, true);
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
  void renew() { target_.emplace(config_, model_.weights, backends_, kMostRows); }
  int layers() const { return config_.n_layers(); }

 private:
  const std::unique_ptr<Backend> backend_;
  const Split<Backend> backends_;
  const RandomModel model_;
  const Config& config_;
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

void check(Make make) {
  Model expected(make, make_cpu_backend(1, "scalar"));
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
    Model model(make, make_gpu_backend(std::move(device), make_cpu_backend(1, "scalar")));
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
int launches(Make make) {
  auto device = std::make_unique<CountingDevice>(gpu::EmulatedOptions{});
  const CountingDevice& counts = *device;
  Model model(make, make_gpu_backend(std::move(device), make_cpu_backend(1, "scalar")));
  model.run({{0, 1, 1}});
  const int before = counts.launches;
  model.run({{0, 1, 1}});
  return counts.launches - before;
}

}  // namespace

TEST_CASE("gpu passes: the CPU's bytes, recorded or not") {
  for (const Make make : {&RandomModel::dense, &RandomModel::experts}) check(make);
}

TEST_CASE("gpu passes: the CPU's bytes, wherever the layers and their experts lie") {
  for (const Make make : {&RandomModel::dense, &RandomModel::experts}) {
    const bool has_experts = make == &RandomModel::experts;
    Model expected(make, make_cpu_backend(1, "scalar"));
    std::vector<std::vector<float>> outputs;
    for (const Pass& pass : kPasses) outputs.push_back(expected.run(pass));
    for (int layers = 0; layers <= expected.layers(); ++layers)
      for (int experts = layers; experts <= (has_experts ? expected.layers() : layers); ++experts) {
        CAPTURE(layers);
        CAPTURE(experts);
        auto device = std::make_unique<CountingDevice>(gpu::EmulatedOptions{});
        const CountingDevice& counts = *device;
        Model model(make, make_gpu_backend(std::move(device), make_cpu_backend(1, "scalar")),
                    {layers, experts});
        for (size_t i = 0; i < kPasses.size(); ++i) {
          CAPTURE(i);
          CHECK(kernel_testing::same(model.run(kPasses[i]), outputs[i]));
        }
        CHECK(counts.recordings == (experts > layers ? 0 : 4));
      }
  }
}

TEST_CASE("gpu passes: memory that is used up ends a pass, and nothing else") {
  const Make make = RandomModel::experts;
  const std::vector<Pass> passes = {
      {{0, 40, 0}}, {{0, 1, 1}}, {{0, 1, 1}}, {{0, 1, 1}}, {{0, 4, 4}, {1, 3, 1}}};
  Model expected(make, make_cpu_backend(1, "scalar"));
  std::vector<std::vector<float>> outputs;
  for (const Pass& pass : passes) outputs.push_back(expected.run(pass));
  // A pass of each kind fails somewhere, and so does the making of a model.
  std::vector<int> failed(passes.size() + 1);
  // Under sanitizers, which take seven times as long, every seventh allocation.
  const char* const asked = std::getenv("GEMTP_FAULT_STEP");
  const int64_t step = asked ? std::atoll(asked) : 1;
  for (int64_t n = 0, allocations = 0; n <= allocations; n += step) {  // at first none fails
    CAPTURE(n);
    const auto device = std::make_shared<CountingDevice>(gpu::EmulatedOptions{});
    const int64_t free = device->memory().free;
    device->fail_at = n;
    try {
      Model model(make, make_gpu_backend(device, make_cpu_backend(1, "scalar")));
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
  CHECK(failed.back() > 100 / step);
  if (step > 1) return;
  CHECK(failed[0] > 3);
  CHECK(failed[1] > 0);
}

TEST_CASE("gpu passes: what belongs to another device is noticed") {
  const auto one = make_gpu_backend(gpu::make_emulated_device(), make_cpu_backend(1, "scalar"));
  const auto other = make_gpu_backend(gpu::make_emulated_device(), make_cpu_backend(1, "scalar"));
  const Buffer x = one->alloc(64), w = one->alloc(64), theirs = other->alloc(64);
  one->norm(x.get(), 1, 64, 1e-6f, {{w.get(), x.get()}});
  CHECK_THROWS_AS(one->norm(theirs.get(), 1, 64, 1e-6f, {{w.get(), x.get()}}), Error);
  CHECK_THROWS_AS(one->norm(x.get(), 1, 64, 1e-6f, {{w.get(), theirs.get()}}), Error);
}

TEST_CASE("gpu passes: at most 12 launches a layer, 17 with experts") {
  // The rows of the per-layer inputs' two parts are quantized; two launches for each; the first
  // norm, the head's three, and its copy.
  CHECK(launches(RandomModel::dense) <= 4 * 12 + 1 + 2 * 2 + 1 + 3 + 1);
  CHECK(launches(RandomModel::experts) <= 3 * 17 + 1 + 3 + 1);
}
