#include "engine/memory.h"

#include <algorithm>
#include <limits>

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

// Returns the longest context, of at least 2 tokens, whose K/V cache takes at most `bytes`; 0 if
// there is none.
int64_t longest_context(const Config& config, int64_t context, int64_t rows, bool f16,
                        int64_t bytes) {
  int64_t low = 0, high = context;
  while (low + 1 < high) {
    const int64_t middle = low + (high - low) / 2;
    MeasuringStorage storage;
    const KvCache cache(config, storage, middle, rows, f16);
    (storage.kv() <= bytes ? low : high) = middle;
  }
  // A round number is easy to type.
  return low > 1024 ? low / 1024 * 1024 : low > 1 ? low : 0;
}

std::string described(const ModelFiles& files) {
  return files.target->quoted_path() + (files.drafter ? " with its drafter" : "");
}

// What a model on a device with memory of its own takes of the host's.
void check_host(const MemoryEstimate& e, const ModelFiles& files, int64_t tables,
                uint64_t available) {
  const int64_t needed = add(e.mirrored, tables);
  if (available == 0 || static_cast<uint64_t>(needed) <= available) return;
  throw Error(ErrorKind::kMemory,
              format("%s needs %s of the host's memory beside the device's and this process may "
                     "use %s: inputs and outputs %s, tables %s; %s",
                     described(files).c_str(), gigabytes(needed).c_str(),
                     gigabytes(static_cast<int64_t>(available)).c_str(),
                     gigabytes(e.mirrored).c_str(), gigabytes(tables).c_str(),
                     tables ? "open it with mmap=True" : "close other programs"));
}

}  // namespace

int64_t MemoryEstimate::needed(bool tables_in_file) const {
  return add(add(weights, kv), add(scratch, tables_in_file ? 0 : tables));
}

MemoryEstimate estimate_memory(const ModelFiles& files, const EngineOptions& options) {
  MemoryEstimate out;
  MeasuringStorage loaded, used;
  const Config& config = files.target_config;
  const Weights weights = load_weights(files.target, config, loaded);
  out.sources = weights.source_bytes;
  for (const WeightSource* table : {&weights.token_embedding, &weights.per_layer_embedding})
    if (table->rows) out.tables += table->rows * table->row_bytes();

  const int64_t rows = options.max_rows();
  out.context = std::min(options.context, config.context);
  const KvCache cache(config, used, out.context, rows, options.kv_f16);
  const TargetScratch pass(config, used, rows);
  Outputs outputs(config, used, CostModel::kMaxRows);  // as many rows as one sequence uses
  outputs.need_logits();
  if (files.drafter) {
    out.sources += load_weights(files.drafter, files.drafter_config, loaded).source_bytes;
    files.check_pair();  // the files are valid by now
    const DrafterScratch step(files.drafter_config, used, 1);
  }
  out.weights = add(loaded.matrices(), loaded.buffers());
  out.formats = loaded.formats();
  out.kv = used.kv();
  // Besides its buffers, the forward pass needs its activations as int8, with a scale and a
  // correction for each block of 32.
  out.scratch = add(used.buffers(), rows * loaded.max_cols() * 5 / 4);
  out.mirrored = used.mirrored();
  out.device_scratch = add(used.buffers(), gpu_scratch_bytes(rows, loaded.max_cols(),
                                                             CostModel::kMaxRows, config.vocab));
  return out;
}

void check_memory(const MemoryEstimate& e, const ModelFiles& files, const EngineOptions& options,
                  const MemoryLimits& limits) {
  const bool own = !limits.device.empty();
  const int64_t tables = options.mmap ? 0 : e.tables;
  if (own) check_host(e, files, tables, limits.host);
  const uint64_t available = own ? limits.on_device : limits.host;
  const int64_t scratch = own ? e.device_scratch : e.scratch;
  const int64_t needed = add(add(e.weights, e.kv), add(scratch, own ? 0 : tables));
  if (available == 0 || static_cast<uint64_t>(needed) <= available) return;
  const auto room = static_cast<int64_t>(available);  // less than needed
  const int64_t fixed = needed - e.kv;
  std::string advice = "use a smaller quantization or a smaller model";
  if (fixed < room) {
    const int64_t context = longest_context(files.target_config, e.context, options.max_rows(),
                                            options.kv_f16, room - fixed);
    if (context > 0)
      advice = format("open it with a context of at most %lld", static_cast<long long>(context));
  } else if (own) {
    advice += ", or the device cpu";
  } else if (fixed - tables < room) {
    advice = "open it with mmap=True";
  }
  const std::string whose = own ? "there are " + gigabytes(room) + " free on " + limits.device
                                : "this process may use " + gigabytes(room);
  throw Error(
      ErrorKind::kMemory,
      format("%s needs %s of memory and %s: weights %s, K/V cache of %lld tokens %s, "
             "scratch %s%s; %s",
             described(files).c_str(), gigabytes(needed).c_str(), whose.c_str(),
             gigabytes(e.weights).c_str(), static_cast<long long>(e.context),
             gigabytes(e.kv).c_str(), gigabytes(scratch).c_str(),
             own || options.mmap ? "" : (", tables " + gigabytes(tables)).c_str(), advice.c_str()));
}

}  // namespace gemtp
