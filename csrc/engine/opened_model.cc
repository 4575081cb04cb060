#include "engine/opened_model.h"

#include <algorithm>
#include <functional>
#include <future>
#include <utility>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/hash.h"
#include "engine/devices.h"
#include "engine/memory.h"
#include "engine/self_test.h"

namespace gemtp {
namespace {

// Leading bytes of each tensor that enter the fingerprint.
constexpr uint64_t kFingerprintBytes = 4096;

uint64_t fingerprint_of(const GgufFile& file) {
  Hash64 hash;
  for (const Tensor& t : file.tensors()) {
    hash.add(t.name.data(), t.name.size());
    hash.add(&t.type, sizeof t.type);
    hash.add(t.shape.data(), t.shape.size() * sizeof(int64_t));
    const std::vector<uint8_t> bytes = file.bytes_of(t, kFingerprintBytes);
    hash.add(bytes.data(), bytes.size());
  }
  return hash.value();
}

// Reports the progress of opening to the caller, in steps that are worth reporting.
class OpenProgress {
 public:
  explicit OpenProgress(const std::function<bool(double)>& report) : report_(report) {}

  /// sources: bytes that will be read from the files.
  void begin(int64_t sources) {
    sources_ = std::max<int64_t>(1, sources);
    tell(0);
  }
  void read(int64_t bytes) {
    read_ += bytes;
    const double fraction = static_cast<double>(read_) / static_cast<double>(sources_);
    if (fraction >= told_ + kStep && fraction < 1) tell(fraction);
  }
  /// Reports progress. Throws Error{kCancelled} if the caller asks for it.
  void tell(double fraction) {
    told_ = fraction;
    if (report_ && !report_(fraction))
      throw Error(ErrorKind::kCancelled, "loading the model was cancelled");
  }

 private:
  static constexpr double kStep = 0.002;
  const std::function<bool(double)>& report_;
  int64_t sources_ = 1;
  int64_t read_ = 0;
  double told_ = 0;
};

}  // namespace

OpenedModel::OpenedModel(ModelFiles files, const EngineOptions& options)
    : files_(std::move(files)), options_(options) {
  OpenProgress progress(options.progress);
  options_.progress = nullptr;  // releases what the callback refers to
  progress.begin(take_device([&progress] { progress.tell(0); }));
  load([&progress](int64_t bytes) { progress.read(bytes); });
  progress.tell(1);
}

// Returns the bytes of the files that will be read. testing: called during a GPU's self-test.
int64_t OpenedModel::take_device(const std::function<void()>& testing) {
  select_gpu_layers(options_.gpu_layers, config().n_layers());  // it may be wrong on every device
  const std::string name = select_device(options_.device);
  if (name != kAutoDevice) return take_device(name, false, testing);
  for (const std::string& gpu : automatic_gpus(refused_gpus_)) {
    try {
      return take_device(gpu, true, testing);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kDevice && e.kind() != ErrorKind::kMemory) throw;
      refused_gpus_.push_back(e.what());
    }
  }
  placement_ = {};
  return take_device("cpu", false, testing);
}

// automatic: only a GPU on which the layers fit is taken. Whether a split model is faster than the
// CPU alone, nobody knows without a measurement.
int64_t OpenedModel::take_device(const std::string& name, bool automatic,
                                 const std::function<void()>& testing) {
  backend_ =
      make_backend(name, options_.threads ? options_.threads : default_threads(), options_.isa);
  const bool gpu = backend_->own_memory();
  MemoryLimits limits{available_memory(), {}, 0};
  if (gpu) {
    limits.device = backend_->device();
    limits.on_device = backend_->available();
    EngineOptions wanted = options_;
    const int layers = config().n_layers();
    if (automatic && !select_gpu_layers(options_.gpu_layers, layers))
      wanted.gpu_layers = std::to_string(layers);
    placement_ = fitting_placement(files_, wanted, limits);
  }
  const MemoryEstimate estimate = estimate_memory(files_, options_, {gpu, placement_});
  check_memory(estimate, files_, options_, limits, placement_);
  if (gpu) {
    std::set<TestedKernels> kernels;
    for (const gemtp_format format : estimate.formats) kernels.insert({format, options_.kv_f16});
    prove(*backend_, kernels, testing);
  }
  return estimate.sources;
}

void OpenedModel::load(const std::function<void(int64_t bytes)>& read) {
  fingerprint_ = fingerprint_of(file());
  // Half a million merges take about as long to load as E2B's weights, so both are loaded in
  // parallel.
  std::future<std::unique_ptr<Tokenizer>> tokenizer;
  if (file().has("tokenizer.ggml.model"))
    tokenizer = std::async([this] { return std::make_unique<Tokenizer>(file()); });
  const Backend::Pass pass(*backend_);
  weights_ = load_weights(files_.target, config(), backends(), read);
  if (tokenizer.valid()) {
    tokenizer_ = tokenizer.get();
    check_tokenizer(file(), *tokenizer_, config());
  }
  settle_tables(weights_, *backend_, !options_.mmap);
  if (files_.drafter) {
    drafter_weights_ = load_weights(files_.drafter, drafter_config(), *backend_, read);
    drafter_ = std::make_unique<Drafter>(drafter_config(), drafter_weights_, config(), weights_,
                                         *backend_);
  }
  target_ = std::make_unique<Target>(config(), weights_, backends(), options_.max_rows());
}

std::string OpenedModel::identity() const {
  if (!backend_->own_memory()) return backend_->device();
  std::string out = backend_->identity() + format(", %d layers", device_layers());
  if (placement_.splits_layers())
    out += format(", experts of %d on the CPU", placement_.host_experts - placement_.host_layers);
  return out;
}

OpenedModel::Exclusive::Lock::Lock(OpenedModel& opened) : model(opened), use(opened.watch_) {
  if (!use) throw_lost_by_fork();
  model.refuse_nested();
  model.mutex_.lock();
  model.holder_ = std::this_thread::get_id();
}

OpenedModel::Exclusive::Lock::~Lock() {
  model.holder_ = std::thread::id();
  model.mutex_.unlock();
}

void OpenedModel::refuse_nested() const {
  if (holder_ == std::this_thread::get_id())
    throw Error(ErrorKind::kArgument,
                "a logits processor cannot use the model that is calling it; use another one");
}

const Tokenizer& OpenedModel::need_tokenizer() const {
  if (!tokenizer_)
    throw Error(ErrorKind::kModel, format("%s holds no tokenizer; pass token ids instead of text",
                                          file().quoted_path().c_str()));
  return *tokenizer_;
}

void OpenedModel::check_ids(const std::vector<int32_t>& ids, int64_t room) const {
  if (ids.empty())
    throw Error(ErrorKind::kArgument, "the prompt is empty; give at least one token");
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= config().vocab)
      throw Error(ErrorKind::kArgument,
                  format("token id %d at index %zu is outside the vocabulary of %lld", ids[i], i,
                         static_cast<long long>(config().vocab)));
  const auto n = static_cast<int64_t>(ids.size());
  if (n + room > context())
    throw Error(
        ErrorKind::kContext,
        format("the prompt has %lld tokens and the context holds %lld%s; shorten the prompt or "
               "open the model with a larger context",
               static_cast<long long>(n), static_cast<long long>(context()),
               room ? ", prompt and answer together" : ""));
}

BytesRead OpenedModel::bytes_read() const {
  const auto token = static_cast<double>(target_bytes());
  BytesRead bytes;
  bytes.draft = static_cast<double>(drafter_bytes()) / token;
  for (int rows = 1; rows <= CostModel::kMaxRows; ++rows)
    bytes.verify[static_cast<size_t>(rows - 1)] =
        static_cast<double>(bytes_per_pass(weights_, config(), rows)) / token;
  return bytes;
}

double OpenedModel::kv_share(int64_t position) const {
  return static_cast<double>(kv_read_bytes(config(), position, options_.kv_f16)) /
         static_cast<double>(target_bytes());
}

}  // namespace gemtp
