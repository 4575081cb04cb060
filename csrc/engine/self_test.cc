#include "engine/self_test.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/gpu/format_names.h"
#include "base/clock.h"
#include "base/cpu_info.h"
#include "base/error.h"
#include "engine/devices.h"
#include "engine/proofs.h"
#include "engine/random_model.h"
#include "model/drafter.h"
#include "model/kv_cache.h"
#include "model/target.h"

namespace gemtp {
namespace {

// Rows of a pass at a position: one that is computed in panels of few rows or, as a prompt, of
// many. Those seen again are recorded. The last ones attend to more than one part of positions.
struct TestPass {
  int64_t position, rows, wanted;
};
constexpr int64_t kMostRows = 48, kContext = 640;
constexpr TestPass kPasses[] = {{0, 33, 1},  {33, 1, 1},  {34, 1, 1}, {35, 1, 1},
                                {36, 2, 2},  {38, 4, 4},  {42, 8, 8}, {50, 16, 16},
                                {66, 40, 0}, {600, 1, 1}, {601, 5, 5}};
constexpr int64_t kPromptPasses = 8;  // those that models with experts run
constexpr int64_t kSteps = 4;         // of the drafter

using Bytes = std::vector<uint8_t>;

template <class T>
void append(Bytes& to, const T* from, int64_t n) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  to.insert(to.end(), bytes, bytes + n * static_cast<int64_t>(sizeof(T)));
}

// A small model on one backend.
class Subject {
 public:
  Subject(Backend& backend, const TestedKernels& k, bool experts)
      : backend_(backend),
        model_(experts ? RandomModel::experts(k.format, backend)
                       : RandomModel::dense(k.format, backend)),
        target_(model_.config, model_.weights, backend, kMostRows),
        kv_(model_.config, backend, kContext, kMostRows, k.kv_f16),
        outputs_{backend.mirror<float>(kMostRows * model_.config.hidden),
                 backend.mirror<BestLogit>(kMostRows),
                 backend.mirror<float>(kMostRows * model_.config.vocab)} {
    kv_.fill_with_noise(backend);
    if (experts) return;
    drafter_model_ = RandomModel::drafter(k.format, backend);
    drafter_ = std::make_unique<Drafter>(drafter_model_.config, drafter_model_.weights,
                                         model_.config, model_.weights, backend);
  }

  // Returns hidden states, logits and the best of each wanted row.
  Bytes run(const TestPass& pass) {
    const Backend::Pass awake(backend_);
    const Config& c = model_.config;
    std::vector<int32_t> ids(static_cast<size_t>(pass.rows));
    for (int64_t i = 0; i < pass.rows; ++i)
      ids[static_cast<size_t>(i)] = static_cast<int32_t>(((pass.position + i) * 37 + 11) % c.vocab);
    kv_.jump(pass.position);
    target_.forward({&kv_, ids.data(), pass.rows, pass.wanted, HeadOutput::kLogits}, outputs_);
    Bytes out;
    append(out, outputs_.hidden.host(), pass.wanted * c.hidden);
    append(out, outputs_.logits.host(), pass.wanted * c.vocab);
    append(out, outputs_.best.host(), pass.wanted);
    return out;
  }

  // Returns what each step of a round gives.
  Bytes draft() {
    const Backend::Pass awake(backend_);
    const Config& c = drafter_->config();
    const std::vector<float> h(static_cast<size_t>(c.backbone), 0.5f);
    Bytes out;
    kv_.jump(66);
    drafter_->begin_round(kv_, 66, h.data(), kSteps);
    int32_t token = 1;
    for (int64_t i = 0; i < kSteps; ++i) {
      drafter_->step(token);
      const int64_t n = drafter_->candidate_count();
      append(out, drafter_->logits(), n);
      append(out, drafter_->candidates(), n);
      append(out, drafter_->hidden(), c.backbone);
      token = drafter_->candidates()[std::max_element(drafter_->logits(), drafter_->logits() + n) -
                                     drafter_->logits()];
      if (token < 0 || token >= c.vocab) break;  // of a GPU that is not exact
    }
    return out;
  }

  Bytes kv() const {
    Bytes out;
    kv_.write([&out](const uint8_t* data, int64_t n) { append(out, data, n); });
    return out;
  }

 private:
  Backend& backend_;
  const RandomModel model_;
  RandomModel drafter_model_;
  Target target_;
  KvCache kv_;
  TargetOutputs outputs_;
  std::unique_ptr<Drafter> drafter_;
};

[[noreturn]] void fail(const Backend& gpu, const TestedKernels& kernels, const std::string& what) {
  throw Error(ErrorKind::kDevice,
              format("%s does not compute what the CPU computes, so its texts would be others (the "
                     "self-test of the kernels for %s: %s); update its driver, or use the device "
                     "cpu",
                     gpu.identity().c_str(), kernels.name().c_str(), what.c_str()));
}

void check(Backend& gpu, const TestedKernels& kernels, const BeforePass& before) {
  for (const bool experts : {false, true}) {
    Subject expected(gpu.host(), kernels, experts), subject(gpu, kernels, experts);
    const auto compare = [&](const std::string& what, const auto& act) {
      before();
      if (act(expected) != act(subject)) fail(gpu, kernels, what + " differs");
    };
    const auto end = experts ? std::begin(kPasses) + kPromptPasses : std::end(kPasses);
    for (auto pass = std::begin(kPasses); pass != end; ++pass)
      compare(format("a pass of %lld rows%s", static_cast<long long>(pass->rows),
                     experts ? " with experts" : ""),
              [pass](Subject& s) { return s.run(*pass); });
    compare("what a pass stores", [](Subject& s) { return s.kv(); });
    if (!experts)
      for (int i = 0; i < 3; ++i)  // the second is recorded
        compare("a draft", [](Subject& s) { return s.draft(); });
  }
}

}  // namespace

std::string TestedKernels::name() const {
  return std::string(gpu::kFormatNames[format]) + (kv_f16 ? " f16" : " f32");
}

std::set<TestedKernels> all_kernels() {
  std::set<TestedKernels> all{{GEMTP_F32, false}};
  for (int format = 0; format < GEMTP_FORMATS; ++format)
    all.insert({static_cast<gemtp_format>(format), true});
  return all;
}

void self_test(Backend& gpu, const std::set<TestedKernels>& kernels, const BeforePass& before) {
  for (const TestedKernels& k : kernels) {
    try {
      check(gpu, k, before);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kInternal) throw;
      fail(gpu, k, e.what());
    }
  }
}

void prove(Backend& gpu, const std::set<TestedKernels>& kernels, const BeforePass& before) {
  Proofs proofs(gpu.device(), gpu.identity());
  std::set<TestedKernels> left;
  for (const TestedKernels& k : kernels)
    if (!proofs.has(k.name())) left.insert(k);
  if (left.empty()) return;
  self_test(gpu, left, before);
  for (const TestedKernels& k : left) proofs.add(k.name());
  proofs.save();
}

SelfTestReport self_test_of(const std::string& device, const BeforePass& before) {
  SelfTestReport report;
  report.device = device;
  try {
    const auto gpu = make_backend(select_device(device), default_threads(), "");
    report.device = gpu->device();
    report.identity = gpu->identity();
    if (!gpu->own_memory())
      throw Error(ErrorKind::kArgument,
                  "the device 'cpu' has no self-test: it is what GPUs are compared with");
    const double start = monotonic_seconds();
    self_test(*gpu, all_kernels(), before);
    report.seconds = monotonic_seconds() - start;
    report.exact = true;
  } catch (const Error& e) {
    report.problem = e.what();
  }
  return report;
}

}  // namespace gemtp
