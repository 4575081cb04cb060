// The functions of the C ABI for models: opening, describing, estimating memory.
#include <memory>

#include "api/c/boundary.h"
#include "api/c/handles.h"
#include "base/build_info.h"
#include "base/cpu_info.h"
#include "engine/engine.h"
#include "engine/memory.h"
#include "engine/model_files.h"
#include "gemtp.h"
#include "text/chat.h"

namespace gemtp {

Handles<gemtp_model, Engine>& models() {
  static auto* const all = new Handles<gemtp_model, Engine>("model");
  return *all;
}

namespace {

gemtp_model_options model_defaults() {
  const EngineOptions d;
  gemtp_model_options o{};
  o.size = sizeof o;
  o.context = d.context;
  o.prefill_chunk = d.prefill_chunk;
  o.kv_budget = d.kv_budget;
  o.threads = d.threads;
  o.kv_f32 = !d.kv_f16;
  o.no_mmap = !d.mmap;
  return o;
}

EngineOptions engine_options(const gemtp_model_options& o) {
  EngineOptions e;
  e.context = o.context;
  e.prefill_chunk = o.prefill_chunk;
  e.kv_budget = o.kv_budget;
  e.threads = o.threads;
  e.kv_f16 = o.kv_f32 == 0;
  e.mmap = o.no_mmap == 0;
  e.isa = o.isa ? o.isa : "";
  e.device = o.device ? o.device : "";
  e.gpu_layers = o.gpu_layers ? o.gpu_layers : "";
  if (o.progress) e.progress = [o](double fraction) { return o.progress(fraction, o.user) == 0; };
  return e;
}

std::string drafter_of(const gemtp_model_options& o) {
  return o.drafter_path ? o.drafter_path : "";
}

}  // namespace
}  // namespace gemtp

using namespace gemtp;

extern "C" {

const char* gemtp_version(void) { return version(); }
int32_t gemtp_abi_version(void) { return GEMTP_ABI_VERSION; }

gemtp_status gemtp_model_options_init(gemtp_model_options* options, size_t size) {
  return guarded(nullptr, 0, [&] { fill(model_defaults(), options, size, "gemtp_model_options"); });
}

gemtp_status gemtp_model_open(const char* target_path, const gemtp_model_options* options,
                              gemtp_model** model, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(target_path, "target_path");
    need(model, "the pointer for the model");
    const auto o = complete(options, model_defaults(), "gemtp_model_options");
    *model = models().add(Engine::open(target_path, drafter_of(o), engine_options(o)));
  });
}

void gemtp_model_close(gemtp_model* model) { models().remove(model); }

gemtp_status gemtp_model_describe(const gemtp_model* model, gemtp_model_info* info, char* error,
                                  size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto engine = models().get(model);
    gemtp_model_info out{};
    out.context = engine->model().context();
    out.kv_budget = engine->sequences().budget();
    out.vocab_size = static_cast<int32_t>(engine->model().config().vocab);
    out.threads = engine->model().backend().threads();
    out.has_drafter = engine->model().has_drafter();
    out.has_tokenizer = engine->model().tokenizer() != nullptr;
    out.has_chat = engine->model().tokenizer() && speaks_chat(*engine->model().tokenizer());
    out.has_chat_template = engine->model().file().has("tokenizer.chat_template");
    out.completes = completes_texts(engine->model().file());
    const std::string backend = engine->model().backend().name();
    backend.copy(out.backend, sizeof out.backend - 1);
    fill(out, info, "gemtp_model_info");
  });
}

gemtp_status gemtp_memory_estimate(const char* target_path, const gemtp_model_options* options,
                                   gemtp_memory* memory, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(target_path, "target_path");
    const auto o = complete(options, model_defaults(), "gemtp_model_options");
    const EngineOptions e = engine_options(o);
    e.check();
    const MemoryEstimate estimate =
        estimate_memory(ModelFiles::open(target_path, drafter_of(o)), e);
    gemtp_memory out{};
    out.weights = estimate.device.weights;
    out.tables = estimate.tables;
    out.kv = estimate.device.kv;
    out.scratch = estimate.device.scratch;
    out.needed = estimate.needed(e.mmap);
    out.available = static_cast<int64_t>(available_memory());
    out.context = estimate.context;
    fill(out, memory, "gemtp_memory");
  });
}

gemtp_status gemtp_model_clear_cache(gemtp_model* model, char* error, size_t error_size) {
  return guarded(error, error_size, [&] { models().get(model)->sequences().clear(); });
}

}  // extern "C"
