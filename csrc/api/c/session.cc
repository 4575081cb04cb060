// The functions of the C ABI for sessions.
#include <atomic>
#include <memory>
#include <utility>

#include "api/c/boundary.h"
#include "api/c/constraint.h"
#include "api/c/handles.h"
#include "api/c/text.h"
#include "engine/engine.h"
#include "gemtp.h"
#include "generate/generation.h"
#include "generate/session.h"

namespace gemtp {
namespace {

class CSession {
 public:
  explicit CSession(std::unique_ptr<Session> t) : session(std::move(t)) {}

  /// Gives one call at a time the session.
  class Call {
   public:
    explicit Call(CSession& session) : session_(session) {
      if (session.busy_.exchange(true)) throw BusyError();
    }
    ~Call() { session_.busy_.store(false); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    CSession& session_;
  };

  void begin(GenerationParams params);
  /// Runs a step; its tokens are in `emitted`.
  void step();
  void generate(const gemtp_generate_options& options);
  /// May be called from any thread. Takes effect from the moment a generation was requested.
  void cancel() {
    cancelled_ = true;
    session->cancel();
  }
  /// Like cancel(), but also for later generations, because the session was closed.
  void close() {
    closed_ = true;
    cancel();
  }

  gemtp_finish finish() const;
  gemtp_token token(size_t index) const;
  gemtp_stats stats() const;

  const std::unique_ptr<Session> session;
  std::vector<Emitted> emitted;                 // by the latest step, including text held back
  std::vector<std::vector<gemtp_logprob>> top;  // for each token

 private:
  bool tell_prompt(const gemtp_generate_options& options, int64_t* told) const;

  std::atomic<bool> busy_{false}, cancelled_{false}, closed_{false};
  bool stopped_ = false;  // stopped by a callback
};

void CSession::begin(GenerationParams params) {
  cancelled_ = false;
  stopped_ = false;
  emitted.clear();
  session->begin(std::move(params));
}

void CSession::step() {
  if (cancelled_ || closed_) session->cancel();
  emitted.clear();
  top.clear();
  const Generation* generation = session->generation();
  const bool was_done = generation && generation->done();
  const auto before = static_cast<int64_t>(session->tokens().size());
  try {
    std::vector<Emitted> out = session->step();
    if (!was_done && generation->done() && !generation->tail().empty()) {
      out.emplace_back();
      out.back().text = generation->tail();
    }
    for (const Emitted& e : out) {
      top.emplace_back();
      for (const TokenLogprob& t : e.logprobs.top) top.back().push_back({t.logprob, t.id});
    }
    emitted = std::move(out);
  } catch (...) {
    session->rewind(before);  // the caller has not seen the later tokens
    throw;
  }
}

// Reports the progress of the prompt. Returns false if the callback stops.
bool CSession::tell_prompt(const gemtp_generate_options& o, int64_t* told) const {
  const int64_t total = session->generation()->stats().prompt_tokens;
  const int64_t done = std::min(session->cached(), total);
  if (!o.on_prompt || *told == total || *told == done) return true;
  *told = done;
  return o.on_prompt(done, total, o.user) == 0;
}

void CSession::generate(const gemtp_generate_options& o) {
  int64_t told = -1;
  bool go_on = tell_prompt(o, &told);
  while (go_on && !session->generation()->done()) {
    const size_t before = session->tokens().size();
    step();
    go_on = tell_prompt(o, &told);
    for (size_t i = 0; go_on && o.on_token && i < emitted.size(); ++i) {
      const gemtp_token t = token(i);
      go_on = o.on_token(&t, o.user) == 0;
      // The session ends with the last token that the caller has seen.
      if (!go_on && t.id >= 0) session->rewind(static_cast<int64_t>(before + i + 1));
    }
  }
  if (go_on) return;
  stopped_ = true;
  session->end();
}

int32_t source_of(DraftSource source) {
  switch (source) {
    case DraftSource::kNone:
      return GEMTP_SOURCE_TARGET;
    case DraftSource::kDrafter:
      return GEMTP_SOURCE_DRAFTER;
    case DraftSource::kLookup:
      return GEMTP_SOURCE_LOOKUP;
    case DraftSource::kGrammar:
      return GEMTP_SOURCE_GRAMMAR;
  }
  return GEMTP_SOURCE_TARGET;
}

gemtp_finish CSession::finish() const {
  if (stopped_) return GEMTP_FINISH_CANCELLED;
  switch (session->generation() ? session->generation()->finish_reason() : FinishReason::kNone) {
    case FinishReason::kNone:
      return GEMTP_UNFINISHED;
    case FinishReason::kStop:
      return GEMTP_FINISH_STOP;
    case FinishReason::kLength:
      return GEMTP_FINISH_LENGTH;
    case FinishReason::kContext:
      return GEMTP_FINISH_CONTEXT;
    case FinishReason::kCancelled:
      return GEMTP_FINISH_CANCELLED;
  }
  return GEMTP_UNFINISHED;
}

gemtp_token CSession::token(size_t index) const {
  if (index >= emitted.size())
    throw Error(ErrorKind::kArgument,
                format("the index is %zu; the latest step gave %zu tokens", index, emitted.size()));
  const Emitted& e = emitted[index];
  gemtp_token t{};
  t.size = sizeof t;
  t.text = e.text.c_str();
  t.length = e.text.size();
  t.id = e.id;
  t.source = source_of(e.source);
  t.depth = e.source == DraftSource::kNone ? 0 : static_cast<int32_t>(index) + 1;
  t.logprob = e.logprobs.chosen;
  t.top = top[index].empty() ? nullptr : top[index].data();
  t.top_count = top[index].size();
  return t;
}

gemtp_stats CSession::stats() const {
  gemtp_stats out{};
  out.finish = finish();
  const Generation* generation = session->generation();
  if (!generation) return out;
  const GenerationStats& s = generation->stats();
  out.rounds = s.rounds;
  out.drafted = s.drafted;
  out.accepted = s.accepted;
  out.lookup_drafted = s.lookup_drafted;
  out.lookup_accepted = s.lookup_accepted;
  out.grammar_drafted = s.grammar_drafted;
  out.grammar_accepted = s.grammar_accepted;
  out.prompt_tokens = s.prompt_tokens;
  out.cached_tokens = s.cached_tokens;
  out.prompt_done = std::min(session->cached(), s.prompt_tokens);
  out.tokens = s.tokens;
  out.prompt_seconds = s.prompt_seconds;
  out.decode_seconds = s.decode_seconds;
  out.tokens_per_second = s.tokens_per_second();
  out.seed = s.seed;
  std::copy(s.depth_histogram.begin(), s.depth_histogram.end(), out.depth_histogram);
  static_assert(sizeof out.depth_histogram == (kMaxDraft + 1) * sizeof(int64_t));
  return out;
}

/// Calls fn(ours, theirs) for each numeric option.
template <class Params, class Options, class Fn>
void for_each_pair(Params& p, Options& o, const Fn& fn) {
  fn(p.max_tokens, o.max_tokens);
  fn(p.sampling.seed, o.seed);
  fn(p.sampling.temperature, o.temperature);
  fn(p.sampling.top_k, o.top_k);
  fn(p.sampling.top_p, o.top_p);
  fn(p.sampling.min_p, o.min_p);
  fn(p.sampling.repetition_penalty, o.repetition_penalty);
  fn(p.sampling.presence_penalty, o.presence_penalty);
  fn(p.sampling.frequency_penalty, o.frequency_penalty);
  fn(p.sampling.penalty_last_n, o.penalty_last_n);
  fn(p.draft, o.draft);
  fn(p.logprobs, o.logprobs);
}

static_assert(GEMTP_DRAFT_AUTO == kAutoDraft);

void put_numbers(const GenerationParams& p, gemtp_generate_options* o) {
  for_each_pair(p, *o, [](const auto& ours, auto& theirs) { theirs = ours; });
}

GenerationParams numbers_of(const gemtp_generate_options& o) {
  GenerationParams p;
  for_each_pair(p, o, [](auto& ours, const auto& theirs) { ours = theirs; });
  return p;
}

gemtp_generate_options generate_defaults() {
  gemtp_generate_options o{};
  o.size = sizeof o;
  put_numbers({}, &o);
  return o;
}

gemtp_generate_options with_defaults(const gemtp_generate_options* options) {
  return complete(options, generate_defaults(), "gemtp_generate_options");
}

GenerationParams params_of(const gemtp_generate_options& o, const Engine& engine) {
  GenerationParams p = numbers_of(o);
  need_array(o.logit_bias, o.logit_bias_count, sizeof *o.logit_bias, "logit_bias");
  for (size_t i = 0; i < o.logit_bias_count; ++i)
    p.sampling.logit_bias.emplace_back(o.logit_bias[i].id, o.logit_bias[i].bias);
  p.ignore_eos = o.ignore_eos != 0;
  p.wait = o.wait != 0;
  p.constraint = constraint_of(o.constraint, engine.model().config().vocab);
  if (o.on_logits)
    p.logits_processor = [on_logits = o.on_logits, user = o.user](const std::vector<int32_t>& ids,
                                                                  float* logits, int64_t vocab) {
      if (on_logits(ids.data(), ids.size(), logits, static_cast<size_t>(vocab), user) != 0)
        throw Error(ErrorKind::kCancelled, "on_logits stopped the generation");
    };
  p.stop = strings_of(o.stop, o.stop_count, "stop");
  return p;
}

Handles<gemtp_session, CSession>& sessions() {
  static auto* const all = new Handles<gemtp_session, CSession>("session");
  return *all;
}

gemtp_session* open_session(std::unique_ptr<Session> session) {
  return sessions().add(std::make_shared<CSession>(std::move(session)));
}

// Runs fn with exclusive use of the session.
template <class Fn>
gemtp_status guarded_call(gemtp_session* session, char* error, size_t error_size, const Fn& fn) {
  return guarded(error, error_size, [&] {
    const std::shared_ptr<CSession> s = sessions().get(session);
    const CSession::Call call(*s);
    fn(*s);
  });
}

}  // namespace
}  // namespace gemtp

using namespace gemtp;

extern "C" {

gemtp_status gemtp_session_open(gemtp_model* model, gemtp_session** session, char* error,
                                size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto engine = models().get(model);
    need(session, "the pointer for the session");
    *session = open_session(std::make_unique<Session>(engine));
  });
}

void gemtp_session_close(gemtp_session* session) {
  if (const std::shared_ptr<CSession> s = sessions().remove(session)) s->close();
}

gemtp_status gemtp_session_append(gemtp_session* session, const int32_t* ids, size_t count,
                                  char* error, size_t error_size) {
  return guarded_call(session, error, error_size,
                      [&](CSession& s) { s.session->append(ids_of(ids, count)); });
}

gemtp_status gemtp_session_append_text(gemtp_session* session, const char* text, size_t length,
                                       int32_t flags, char* error, size_t error_size) {
  return guarded_call(session, error, error_size, [&](CSession& s) {
    s.session->append(encode(*s.session->engine(), text_of(text, length, "text"), flags));
  });
}

gemtp_status gemtp_session_assign(gemtp_session* session, const int32_t* ids, size_t count,
                                  char* error, size_t error_size) {
  return guarded_call(session, error, error_size, [&](CSession& s) {
    const std::vector<int32_t> all = ids_of(ids, count);
    if (count) s.session->engine()->model().check_ids(all, 0);
    const std::vector<int32_t>& have = s.session->tokens();
    const auto common = std::mismatch(have.begin(), have.end(), all.begin(), all.end()).second;
    s.session->rewind(common - all.begin());
    s.session->append({common, all.end()});
  });
}

gemtp_status gemtp_session_tokens(gemtp_session* session, int32_t* ids, size_t capacity,
                                  size_t* count, char* error, size_t error_size) {
  return guarded_call(session, error, error_size,
                      [&](CSession& s) { copy_out(s.session->tokens(), ids, capacity, count); });
}

gemtp_status gemtp_session_rewind(gemtp_session* session, int64_t length, char* error,
                                  size_t error_size) {
  return guarded_call(session, error, error_size, [&](CSession& s) { s.session->rewind(length); });
}

gemtp_status gemtp_session_fork(gemtp_session* session, gemtp_session** fork, char* error,
                                size_t error_size) {
  return guarded_call(session, error, error_size, [&](CSession& s) {
    need(fork, "the pointer for the fork");
    *fork = open_session(s.session->fork());
  });
}

gemtp_status gemtp_session_save(gemtp_session* session, const char* path, char* error,
                                size_t error_size) {
  return guarded_call(session, error, error_size, [&](CSession& s) {
    need(path, "path");
    s.session->save(path);
  });
}

gemtp_status gemtp_session_restore(gemtp_model* model, const char* path, gemtp_session** session,
                                   char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto engine = models().get(model);
    need(path, "path");
    need(session, "the pointer for the session");
    *session = open_session(Session::restore(engine, path));
  });
}

gemtp_status gemtp_generate_options_init(gemtp_generate_options* options, size_t size) {
  return guarded(nullptr, 0,
                 [&] { fill(generate_defaults(), options, size, "gemtp_generate_options"); });
}

gemtp_status gemtp_model_sampling(const gemtp_model* model, gemtp_generate_options* options,
                                  char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto engine = models().get(model);
    need(options, "options");
    gemtp_generate_options o = with_defaults(options);
    GenerationParams params = numbers_of(o);
    for (const RecommendedOption& r : recommended_sampling(engine->model().file()))
      set_option(&params, r.name, r.value);
    put_numbers(params, &o);
    fill(o, options, "gemtp_generate_options");
  });
}

gemtp_status gemtp_session_generate(gemtp_session* session, const gemtp_generate_options* options,
                                    char* error, size_t error_size) {
  return guarded_call(session, error, error_size, [&](CSession& s) {
    const gemtp_generate_options o = with_defaults(options);
    s.begin(params_of(o, *s.session->engine()));
    s.generate(o);
  });
}

gemtp_status gemtp_session_cancel(gemtp_session* session, char* error, size_t error_size) {
  return guarded(error, error_size, [&] { sessions().get(session)->cancel(); });
}

gemtp_status gemtp_session_begin(gemtp_session* session, const gemtp_generate_options* options,
                                 char* error, size_t error_size) {
  return guarded_call(session, error, error_size, [&](CSession& s) {
    s.begin(params_of(with_defaults(options), *s.session->engine()));
  });
}

gemtp_status gemtp_session_step(gemtp_session* session, size_t* count, gemtp_finish* finish,
                                char* error, size_t error_size) {
  return guarded_call(session, error, error_size, [&](CSession& s) {
    need(count, "the pointer for the number of tokens");
    need(finish, "the pointer for the reason of the end");
    s.step();
    *count = s.emitted.size();
    *finish = s.finish();
  });
}

gemtp_status gemtp_session_emitted(gemtp_session* session, size_t index, gemtp_token* token,
                                   char* error, size_t error_size) {
  return guarded_call(session, error, error_size,
                      [&](CSession& s) { fill(s.token(index), token, "gemtp_token"); });
}

gemtp_status gemtp_session_stats(gemtp_session* session, gemtp_stats* stats, char* error,
                                 size_t error_size) {
  return guarded_call(session, error, error_size,
                      [&](CSession& s) { fill(s.stats(), stats, "gemtp_stats"); });
}

}  // extern "C"
