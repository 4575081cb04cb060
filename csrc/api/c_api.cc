// The C ABI of gemtp.h: the one place where exceptions become status codes.
#include <algorithm>
#include <cstring>
#include <new>

#include "base/error.h"
#include "decode/engine.h"
#include "decode/generation.h"
#include "gemtp.h"

struct gemtp_engine {
  std::shared_ptr<gemtp::Engine> engine;
  std::string backend;
};

struct gemtp_session {
  std::unique_ptr<gemtp::Generation> generation;
  std::string text;
  std::vector<int32_t> tokens;
};

namespace {

using gemtp::Error;
using gemtp::ErrorKind;

gemtp_status status_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kFile:
      return GEMTP_ERROR_FILE;
    case ErrorKind::kModel:
      return GEMTP_ERROR_MODEL;
    case ErrorKind::kArgument:
      return GEMTP_ERROR_ARGUMENT;
    case ErrorKind::kContext:
      return GEMTP_ERROR_CONTEXT;
    case ErrorKind::kCancelled:
      return GEMTP_ERROR_CANCELLED;
    case ErrorKind::kMemory:
      return GEMTP_ERROR_MEMORY;
    case ErrorKind::kInternal:
      return GEMTP_ERROR_INTERNAL;
  }
  return GEMTP_ERROR_INTERNAL;
}

void write_error(const char* message, char* error, size_t size) {
  if (!error || size == 0) return;
  const size_t n = std::min(std::strlen(message), size - 1);
  std::memcpy(error, message, n);
  error[n] = 0;
}

// Runs fn and translates whatever it throws.
template <class Fn>
gemtp_status guarded(char* error, size_t error_size, const Fn& fn) {
  try {
    fn();
    return GEMTP_OK;
  } catch (const Error& e) {
    write_error(e.what(), error, error_size);
    return status_of(e.kind());
  } catch (const std::bad_alloc&) {
    write_error("not enough memory; use a smaller context or a smaller model", error, error_size);
    return GEMTP_ERROR_MEMORY;
  } catch (const std::exception& e) {
    write_error(e.what(), error, error_size);
    return GEMTP_ERROR_INTERNAL;
  }
}

void need(bool ok, const char* what) {
  if (!ok) throw Error(ErrorKind::kArgument, std::string(what) + " is NULL");
}

// The caller's options over the defaults: fields that an older caller does not know keep theirs.
template <class Options>
Options complete(const Options* given, Options defaults, const char* type) {
  if (!given) return defaults;
  if (given->size == 0 || given->size > sizeof(Options))
    throw Error(ErrorKind::kArgument,
                std::string(type) + ".size is not set; start from " + type + "_default()");
  std::memcpy(&defaults, given, given->size);
  return defaults;
}

template <class T>
void copy_out(const T* from, size_t n, T* to, size_t capacity, size_t* count) {
  need(count != nullptr, "the pointer for the count");
  need(to != nullptr || capacity == 0, "the output buffer");
  std::copy_n(from, std::min(n, capacity), to);
  *count = n;
}

gemtp::GenerationParams params_of(const gemtp_generate_options& o) {
  gemtp::GenerationParams p;
  p.max_tokens = o.max_tokens;
  p.sampling.temperature = o.temperature;
  p.sampling.top_k = o.top_k;
  p.sampling.top_p = o.top_p;
  p.sampling.min_p = o.min_p;
  p.sampling.repetition_penalty = o.repetition_penalty;
  p.sampling.presence_penalty = o.presence_penalty;
  p.sampling.frequency_penalty = o.frequency_penalty;
  p.sampling.penalty_last_n = o.penalty_last_n;
  p.sampling.seed = o.seed;
  p.draft = o.draft;
  p.ignore_eos = o.ignore_eos != 0;
  need(o.stop != nullptr || o.stop_count == 0, "stop");
  for (size_t i = 0; i < o.stop_count; ++i) {
    need(o.stop[i] != nullptr, "a stop string");
    p.stop.emplace_back(o.stop[i]);
  }
  return p;
}

void start(gemtp_engine* engine, std::vector<int32_t> ids, const gemtp_generate_options* options,
           gemtp_session** out) {
  need(out != nullptr, "the pointer for the session");
  const auto complete_options =
      complete(options, gemtp_generate_options_default(), "gemtp_generate_options");
  auto session = std::make_unique<gemtp_session>();
  session->generation = std::make_unique<gemtp::Generation>(engine->engine, std::move(ids),
                                                            params_of(complete_options));
  *out = session.release();
}

}  // namespace

extern "C" {

const char* gemtp_version(void) { return gemtp::version(); }

gemtp_engine_options gemtp_engine_options_default(void) {
  const gemtp::EngineOptions d;
  gemtp_engine_options o{};
  o.size = sizeof o;
  o.threads = d.threads;
  o.context = d.context;
  o.prefill_chunk = d.prefill_chunk;
  return o;
}

gemtp_status gemtp_engine_open(const char* target_path, const gemtp_engine_options* options,
                               gemtp_engine** engine, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(target_path != nullptr, "target_path");
    need(engine != nullptr, "the pointer for the engine");
    const auto o = complete(options, gemtp_engine_options_default(), "gemtp_engine_options");
    gemtp::EngineOptions e;
    e.threads = o.threads;
    e.context = o.context;
    e.prefill_chunk = o.prefill_chunk;
    e.kv_f16 = o.kv_f32 == 0;
    e.mmap = o.no_mmap == 0;
    e.isa = o.isa ? o.isa : "";
    auto opened = std::make_unique<gemtp_engine>();
    opened->engine = gemtp::Engine::open(target_path, o.drafter_path ? o.drafter_path : "", e);
    opened->backend = opened->engine->backend_name();
    *engine = opened.release();
  });
}

void gemtp_engine_close(gemtp_engine* engine) { delete engine; }

int64_t gemtp_engine_vocab_size(const gemtp_engine* engine) {
  return engine->engine->config().vocab;
}
int64_t gemtp_engine_context(const gemtp_engine* engine) { return engine->engine->context(); }
const char* gemtp_engine_backend(const gemtp_engine* engine) { return engine->backend.c_str(); }

gemtp_status gemtp_tokenize(const gemtp_engine* engine, const char* text, size_t length, int flags,
                            int32_t* ids, size_t capacity, size_t* count, char* error,
                            size_t error_size) {
  return guarded(error, error_size, [&] {
    need(engine != nullptr, "engine");
    need(text != nullptr || length == 0, "text");
    const auto all = engine->engine->need_tokenizer().encode(
        {text, length}, (flags & GEMTP_ADD_BOS) != 0, (flags & GEMTP_PARSE_SPECIAL) != 0);
    copy_out(all.data(), all.size(), ids, capacity, count);
  });
}

gemtp_status gemtp_detokenize(const gemtp_engine* engine, const int32_t* ids, size_t count,
                              char* text, size_t capacity, size_t* length, char* error,
                              size_t error_size) {
  return guarded(error, error_size, [&] {
    need(engine != nullptr, "engine");
    need(ids != nullptr || count == 0, "ids");
    const std::string all =
        engine->engine->need_tokenizer().decode(std::vector<int32_t>(ids, ids + count), false);
    copy_out(all.data(), all.size(), text, capacity, length);
  });
}

gemtp_generate_options gemtp_generate_options_default(void) {
  const gemtp::GenerationParams d;
  gemtp_generate_options o{};
  o.size = sizeof o;
  o.max_tokens = d.max_tokens;
  o.temperature = d.sampling.temperature;
  o.top_k = d.sampling.top_k;
  o.top_p = d.sampling.top_p;
  o.min_p = d.sampling.min_p;
  o.repetition_penalty = d.sampling.repetition_penalty;
  o.penalty_last_n = d.sampling.penalty_last_n;
  o.draft = GEMTP_DRAFT_AUTO;
  return o;
}

gemtp_status gemtp_session_start(gemtp_engine* engine, const int32_t* ids, size_t count,
                                 const gemtp_generate_options* options, gemtp_session** session,
                                 char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(engine != nullptr, "engine");
    need(ids != nullptr || count == 0, "ids");
    start(engine, std::vector<int32_t>(ids, ids + count), options, session);
  });
}

gemtp_status gemtp_session_start_text(gemtp_engine* engine, const char* text, size_t length,
                                      const gemtp_generate_options* options,
                                      gemtp_session** session, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(engine != nullptr, "engine");
    need(text != nullptr || length == 0, "text");
    start(engine, engine->engine->need_tokenizer().encode({text, length}, true, false), options,
          session);
  });
}

gemtp_status gemtp_session_step(gemtp_session* session, const char** text, size_t* length,
                                char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(session != nullptr, "session");
    need(text != nullptr && length != nullptr, "the pointer for the text");
    std::string piece;
    const bool was_done = session->generation->done();
    for (const gemtp::Emitted& e : session->generation->step()) {
      session->tokens.push_back(e.id);
      piece += e.text;
    }
    if (!was_done && session->generation->done()) piece += session->generation->tail();
    session->text = std::move(piece);
    *text = session->text.data();
    *length = session->text.size();
  });
}

int gemtp_session_done(const gemtp_session* session) { return session->generation->done(); }

const char* gemtp_session_finish_reason(const gemtp_session* session) {
  return gemtp::finish_reason_name(session->generation->finish_reason());
}

const int32_t* gemtp_session_tokens(const gemtp_session* session, size_t* count) {
  if (count) *count = session->tokens.size();
  return session->tokens.data();
}

gemtp_stats gemtp_session_stats(const gemtp_session* session) {
  const gemtp::GenerationStats& s = session->generation->stats();
  gemtp_stats out{};
  out.rounds = s.rounds;
  out.drafted = s.drafted;
  out.accepted = s.accepted;
  out.prompt_tokens = s.prompt_tokens;
  out.cached_tokens = s.cached_tokens;
  out.tokens = s.tokens;
  out.prompt_seconds = s.prompt_seconds;
  out.decode_seconds = s.decode_seconds;
  return out;
}

void gemtp_session_free(gemtp_session* session) { delete session; }

}  // extern "C"
