#include "engine/memory.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "backend/cpu/measuring_storage.h"
#include "backend/gpu/gpu_backend.h"
#include "base/error.h"
#include "draft/costs.h"
#include "engine/outputs.h"
#include "model/drafter.h"
#include "model/kv_cache.h"
#include "model/target.h"
#include "model/weights.h"

namespace gemtp {
namespace {

int64_t add(int64_t a, int64_t b) {
  constexpr auto kMost = std::numeric_limits<int64_t>::max();
  return a > kMost - b ? kMost : a + b;
}

// Formats a size like "1.28 GB", in powers of 1000 like file sizes.
std::string gigabytes(int64_t bytes) {
  const double gb = static_cast<double>(bytes) * 1e-9;
  return format(gb < 0.1 ? "%.3f GB" : "%.2f GB", gb);
}

// Returns the longest context, of at least 2 tokens, whose K/V take at most `bytes` on the device;
// 0 if there is none.
int64_t longest_context(const Config& config, int64_t context, const EngineOptions& options,
                        const Placement& placement, int64_t bytes) {
  int64_t low = 0, high = context;
  while (low + 1 < high) {
    const int64_t middle = low + (high - low) / 2;
    MeasuringStorage device, host;
    const KvCache cache(config, {device, host, placement}, middle, options.max_rows(),
                        options.kv_f16);
    (device.kv() <= bytes ? low : high) = middle;
  }
  // A round number is easy to type.
  return low > 1024 ? low / 1024 * 1024 : low > 1 ? low : 0;
}

std::string described(const ModelFiles& files) {
  return files.target->quoted_path() + (files.drafter ? " with its drafter" : "");
}

// A use as part of a sentence.
std::string figures(const MemoryUse& use, int64_t context) {
  return format("weights %s, K/V cache of %lld tokens %s, scratch %s",
                gigabytes(use.weights).c_str(), static_cast<long long>(context),
                gigabytes(use.kv).c_str(), gigabytes(use.scratch).c_str());
}

// What the host has in memory of a model.
int64_t on_host(const MemoryEstimate& e, const EngineOptions& options, bool gpu) {
  return add(gpu ? e.host.total() : e.device.total(), options.mmap ? 0 : e.tables);
}

bool fits(int64_t needed, uint64_t available) {
  return available == 0 || static_cast<uint64_t>(needed) <= available;
}

// What a model on a GPU takes of the host's memory.
void check_host(const MemoryEstimate& e, const ModelFiles& files, const EngineOptions& options,
                uint64_t available) {
  const int64_t needed = on_host(e, options, true);
  if (fits(needed, available)) return;
  throw Error(
      ErrorKind::kMemory,
      format("%s needs %s of the host's memory beside the device's and this process may "
             "use %s: %s%s; %s",
             described(files).c_str(), gigabytes(needed).c_str(),
             gigabytes(static_cast<int64_t>(available)).c_str(), figures(e.host, e.context).c_str(),
             options.mmap ? "" : (", tables " + gigabytes(e.tables)).c_str(),
             options.mmap ? "close other programs" : "open it with mmap=True"));
}

// The least number from `low` to `high` for which `good` holds; `high` need not be good.
template <class Good>
int least(int low, int high, const Good& good) {
  while (low < high) {
    const int middle = low + (high - low) / 2;
    good(middle) ? high = middle : low = middle + 1;
  }
  return low;
}

// Whether a placement fits, and how many layers would.
class Fit {
 public:
  Fit(const ModelFiles& files, const EngineOptions& options, const MemoryLimits& limits)
      : files_(files),
        options_(options),
        limits_(limits),
        layers_(files.target_config.n_layers()) {}

  bool operator()(const Placement& placement) const {
    const MemoryEstimate e = estimate_memory(files_, options_, {true, placement});
    return fits(e.device.total(), limits_.on_device) &&
           fits(on_host(e, options_, true), limits_.host);
  }
  /// The first layers that lie on the host at least, with all experts there.
  int host_layers() const {
    return least(0, layers_, [&](int n) { return (*this)(with_all_experts(n)); });
  }
  /// With the fewest experts on the host that fit.
  Placement with_layers(int host_layers) const {
    if (!files_.target_config.experts) return {host_layers, host_layers};
    const int experts =
        least(host_layers, layers_, [&](int n) { return (*this)({host_layers, n}); });
    return {host_layers, experts};
  }

 private:
  Placement with_all_experts(int host_layers) const {
    return {host_layers, files_.target_config.experts ? layers_ : host_layers};
  }

  const ModelFiles& files_;
  const EngineOptions& options_;
  const MemoryLimits& limits_;
  const int layers_;
};

// What could be done about a device that is too small.
std::string advice_for_gpu(const MemoryEstimate& e, const ModelFiles& files,
                           const EngineOptions& options, const MemoryLimits& limits,
                           const Placement& placement) {
  std::vector<std::string> ways;
  const int64_t room = static_cast<int64_t>(limits.on_device) - (e.device.total() - e.device.kv);
  const int64_t context = longest_context(files.target_config, e.context, options, placement, room);
  if (room > 0 && context > 0)
    ways.push_back(format("with a context of at most %lld", static_cast<long long>(context)));
  const Fit fit(files, options, limits);
  const int layers = files.target_config.n_layers(), host_layers = fit.host_layers();
  if (host_layers > placement.host_layers && fit(fit.with_layers(host_layers)))
    ways.push_back(format("with gpu_layers of at most %d", layers - host_layers));
  if (ways.empty()) return "use a smaller quantization or a smaller model, or the device cpu";
  return "open it " + ways.front() + (ways.size() > 1 ? ", or " + ways.back() : "");
}

std::string advice_for_cpu(const MemoryEstimate& e, const ModelFiles& files,
                           const EngineOptions& options, int64_t available) {
  const int64_t fixed = on_host(e, options, false) - e.device.kv;
  if (fixed >= available)
    return !options.mmap && fixed - e.tables < available
               ? "open it with mmap=True"
               : "use a smaller quantization or a smaller model";
  const int64_t context =
      longest_context(files.target_config, e.context, options, {}, available - fixed);
  return context > 0
             ? format("open it with a context of at most %lld", static_cast<long long>(context))
             : "use a smaller quantization or a smaller model";
}

}  // namespace

int64_t MemoryUse::total() const { return add(add(weights, kv), scratch); }

int64_t MemoryEstimate::needed(bool tables_in_file) const {
  return add(device.total(), tables_in_file ? 0 : tables);
}

MemoryEstimate estimate_memory(const ModelFiles& files, const EngineOptions& options,
                               const Place& place) {
  MemoryEstimate out;
  MeasuringStorage loaded, used, host_loaded, host_used;
  const Split<MeasuringStorage> storages(used, host_used, place.placement);
  const Config& config = files.target_config;
  const Weights weights = load_weights(
      files.target, config, Split<MeasuringStorage>(loaded, host_loaded, place.placement));
  out.sources = weights.source_bytes;
  for (const WeightSource* table : {&weights.token_embedding, &weights.per_layer_embedding})
    if (table->rows) out.tables += table->rows * table->row_bytes();

  const int64_t rows = options.max_rows();
  out.context = std::min(options.context, config.context);
  const KvCache cache(config, storages, out.context, rows, options.kv_f16);
  const TargetScratch pass(config, storages, rows);
  Outputs outputs(config, used, CostModel::kMaxRows);  // as many rows as one sequence uses
  outputs.need_logits();
  if (files.drafter) {
    out.sources += load_weights(files.drafter, files.drafter_config, loaded).source_bytes;
    files.check_pair();  // the files are valid by now
    const DrafterScratch step(files.drafter_config, used, 1);
  }
  out.formats = loaded.formats();
  // Besides its buffers, the CPU's forward pass needs its activations as int8, with a scale and a
  // correction for each block of 32.
  const auto cpu_scratch = [&](const MeasuringStorage& on, const MeasuringStorage& matrices) {
    return add(on.buffers(), rows * matrices.max_cols() * 5 / 4);
  };
  out.device = {add(loaded.matrices(), loaded.buffers()), used.kv(), cpu_scratch(used, loaded)};
  if (!place.gpu) return out;
  out.device.scratch = add(used.buffers(), gpu_scratch_bytes(rows, loaded.max_cols(),
                                                             CostModel::kMaxRows, config.vocab));
  out.host = {add(host_loaded.matrices(), host_loaded.buffers()), host_used.kv(),
              add(used.mirrored(), cpu_scratch(host_used, host_loaded))};
  return out;
}

Placement fitting_placement(const ModelFiles& files, const EngineOptions& options,
                            const MemoryLimits& limits) {
  const Fit fit(files, options, limits);
  const int layers = files.target_config.n_layers();
  const std::optional<int> given = select_gpu_layers(options.gpu_layers, layers);
  return fit.with_layers(given ? layers - *given : fit.host_layers());
}

void check_memory(const MemoryEstimate& e, const ModelFiles& files, const EngineOptions& options,
                  const MemoryLimits& limits, const Placement& placement) {
  const bool gpu = !limits.device.empty();
  if (gpu) check_host(e, files, options, limits.host);
  const int64_t needed = gpu ? e.device.total() : on_host(e, options, false);
  const uint64_t available = gpu ? limits.on_device : limits.host;
  if (fits(needed, available)) return;
  const auto room = static_cast<int64_t>(available);  // less than needed
  const std::string whose = gpu ? "there are " + gigabytes(room) + " free on " + limits.device
                                : "this process may use " + gigabytes(room);
  const std::string advice = gpu ? advice_for_gpu(e, files, options, limits, placement)
                                 : advice_for_cpu(e, files, options, room);
  throw Error(ErrorKind::kMemory,
              format("%s needs %s of memory and %s: %s%s; %s", described(files).c_str(),
                     gigabytes(needed).c_str(), whose.c_str(), figures(e.device, e.context).c_str(),
                     gpu || options.mmap ? "" : (", tables " + gigabytes(e.tables)).c_str(),
                     advice.c_str()));
}

}  // namespace gemtp
