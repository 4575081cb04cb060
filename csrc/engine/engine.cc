#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>
#include <limits>
#include <map>
#include <new>

#include "backend/cpu/measuring_storage.h"
#include "base/cpu_info.h"
#include "base/error.h"
#include "base/hash.h"
#include "choose/choose.h"
#include "engine/draft_round.h"
#include "engine/memory.h"
#include "engine/model_files.h"

namespace gemtp {
namespace {

// Unless the caller says otherwise, K/V caches take at most half of the memory that is free once
// the model is there, and no more than so many full ones.
constexpr int64_t kFullCaches = 16;

// Tokens at the end of an earlier sequence that are not worth keeping it for.
constexpr int64_t kReprocessedTokens = 64;

// Of each tensor, the bytes that tell it from another.
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

int64_t full_cache_bytes(const Config& config, const EngineOptions& options, int64_t context) {
  MeasuringStorage storage;
  const KvCache cache(config, storage, context, max_rows(options), options.kv_f16);
  return storage.kv();
}

int64_t default_kv_budget(int64_t one) {
  const auto half = static_cast<int64_t>(available_memory() / 2);  // 0: unknown
  return std::max(one, half ? std::min(kFullCaches * one, half) : kFullCaches * one);
}

// Tells the caller of Engine::open() how far it is, in steps that are worth telling.
class OpenProgress {
 public:
  /// sources: of the files, that will be read.
  OpenProgress(const std::function<bool(double)>& report, int64_t sources)
      : report_(report), sources_(std::max<int64_t>(1, sources)) {}

  void read(int64_t bytes) {
    read_ += bytes;
    const double fraction = static_cast<double>(read_) / static_cast<double>(sources_);
    if (fraction >= told_ + kStep && fraction < 1) tell(fraction);
  }
  /// Error{kCancelled}, if that is what the caller wants.
  void tell(double fraction) {
    told_ = fraction;
    if (report_ && !report_(fraction))
      throw Error(ErrorKind::kCancelled, "loading the model was cancelled");
  }

 private:
  static constexpr double kStep = 0.002;
  const std::function<bool(double)>& report_;
  const int64_t sources_;
  int64_t read_ = 0;
  double told_ = 0;
};

}  // namespace

void EngineOptions::check() const {
  const auto need = [](const char* name, int64_t v, int64_t low, int64_t high) {
    if (v < low || v > high)
      throw Error(
          ErrorKind::kArgument,
          format("%s is %lld; it must be between %lld and %lld", name, static_cast<long long>(v),
                 static_cast<long long>(low), static_cast<long long>(high)));
  };
  need("threads", threads, 0, 1024);
  need("context", context, 2, int64_t{1} << 24);
  need("prefill_chunk", prefill_chunk, 1, 65536);
  need("kv_budget", kv_budget, 0, int64_t{1} << 50);
}

const char* version() { return GEMTP_VERSION; }

const char* compiler() {
#define GEMTP_QUOTE(x) #x
#define GEMTP_EXPAND(x) GEMTP_QUOTE(x)
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#elif defined(_MSC_FULL_VER)
  return "MSVC " GEMTP_EXPAND(_MSC_FULL_VER);
#else
  return "an unknown compiler";
#endif
#undef GEMTP_EXPAND
#undef GEMTP_QUOTE
}

std::shared_ptr<Engine> Engine::open(const std::string& target_path,
                                     const std::string& drafter_path,
                                     const EngineOptions& options) {
  options.check();
  // A child cannot end what threads of its parent have begun: it leaves such an engine as it is.
  std::shared_ptr<Engine> e(new Engine, [](Engine* engine) {
    if (!engine->watch_.lost()) delete engine;
  });
  e->options_ = options;
  e->options_.progress = nullptr;  // whatever it holds on to is the caller's
  const ModelFiles files = ModelFiles::open(target_path, drafter_path);
  e->config_ = files.target_config;
  e->drafter_config_ = files.drafter_config;
  e->backend_ =
      make_cpu_backend(options.threads ? options.threads : default_threads(), options.isa);
  const MemoryEstimate estimate = estimate_memory(files, options);
  check_memory(estimate, files, options, available_memory());
  OpenProgress progress(options.progress, estimate.sources);
  progress.tell(0);
  const auto read = [&progress](int64_t bytes) { progress.read(bytes); };

  e->fingerprint_ = fingerprint_of(*files.target);

  // Half a million merges take about as long as E2B's weights: beside each other.
  std::future<std::unique_ptr<Tokenizer>> tokenizer;
  if (files.target->has("tokenizer.ggml.model"))
    tokenizer = std::async([&] { return std::make_unique<Tokenizer>(*files.target); });
  const Backend::Pass pass(*e->backend_);
  e->weights_ = load_weights(files.target, e->config_, *e->backend_, HeadChoice::kOfFile, read);
  if (tokenizer.valid()) e->tokenizer_ = tokenizer.get();
  if (e->tokenizer_) check_tokenizer(*files.target, *e->tokenizer_, e->config_);
  settle_tables(e->weights_, *e->backend_, !options.mmap);
  e->context_ = std::min(options.context, e->config_.context);
  if (files.drafter) {
    e->drafter_weights_ =
        load_weights(files.drafter, e->drafter_config_, *e->backend_, HeadChoice::kOfFile, read);
    e->drafter_ = std::make_unique<Drafter>(e->drafter_config_, e->drafter_weights_, e->config_,
                                            e->weights_, *e->backend_);
  }
  e->depth_estimates_ = DepthEstimates(e->bytes_read());
  e->target_ = std::make_unique<Target>(e->config_, e->weights_, *e->backend_, e->max_rows());
  e->outputs_ = std::make_unique<Outputs>(e->config_, *e->backend_, Scheduler::kOutputRows);
  const int64_t one = full_cache_bytes(e->config_, options, e->context_);
  const int64_t budget = options.kv_budget ? options.kv_budget : default_kv_budget(one);
  if (budget < one)
    throw Error(ErrorKind::kArgument,
                format("kv_budget is %lld bytes, but the K/V cache of one sequence of %lld tokens "
                       "takes %lld; give it more, or open the model with a smaller context",
                       static_cast<long long>(budget), static_cast<long long>(e->context_),
                       static_cast<long long>(one)));
  e->kv_budget_ = std::make_shared<KvBudget>(budget);
  progress.tell(1);
  return e;
}

int64_t max_rows(const EngineOptions& options) {
  return std::max<int64_t>(options.prefill_chunk, kMaxDraft + 1);
}

const Tokenizer& Engine::need_tokenizer() const {
  if (!tokenizer_)
    throw Error(ErrorKind::kModel, format("%s holds no tokenizer; pass token ids instead of text",
                                          file().quoted_path().c_str()));
  return *tokenizer_;
}

void Engine::check_ids(const std::vector<int32_t>& ids, int64_t room) const {
  if (ids.empty())
    throw Error(ErrorKind::kArgument, "the prompt is empty; give at least one token");
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= config_.vocab)
      throw Error(ErrorKind::kArgument,
                  format("token id %d at index %zu is outside the vocabulary of %lld", ids[i], i,
                         static_cast<long long>(config_.vocab)));
  const auto n = static_cast<int64_t>(ids.size());
  if (n + room > context_)
    throw Error(
        ErrorKind::kContext,
        format("the prompt has %lld tokens and the context holds %lld%s; shorten the prompt or "
               "open the model with a larger context",
               static_cast<long long>(n), static_cast<long long>(context_),
               room ? ", prompt and answer together" : ""));
}

BytesRead Engine::bytes_read() const {
  const auto token = static_cast<double>(target_bytes());
  BytesRead bytes;
  bytes.draft = static_cast<double>(drafter_bytes()) / token;
  for (int rows = 1; rows <= CostModel::kMaxRows; ++rows)
    bytes.verify[static_cast<size_t>(rows - 1)] =
        static_cast<double>(bytes_per_pass(weights_, config_, rows)) / token;
  return bytes;
}

double Engine::kv_share(int64_t position) const {
  return static_cast<double>(kv_read_bytes(config_, position, options_.kv_f16)) /
         static_cast<double>(target_bytes());
}

void Engine::set_costs(const std::vector<VerifyCost>& verify, const std::vector<DraftCost>& draft) {
  const auto check = [](int64_t context, double seconds) {
    if (!(seconds > 0) || !std::isfinite(seconds))
      throw Error(ErrorKind::kArgument,
                  format("a measured time is %g seconds; it must be positive", seconds));
    if (context < 0)
      throw Error(ErrorKind::kArgument, "the context of a measured time is negative");
  };
  for (const VerifyCost& v : verify) {
    check(v.context, v.seconds);
    if (v.rows < 1 || v.rows > kMaxDraft + 1)
      throw Error(ErrorKind::kArgument, format("a measured pass has %d rows; it must have 1 to %d",
                                               v.rows, kMaxDraft + 1));
  }
  std::map<int64_t, double> first;  // context -> seconds
  for (const DraftCost& d : draft) {
    check(d.context, d.seconds);
    if (d.step < 0 || d.step > 1)
      throw Error(ErrorKind::kArgument,
                  format("a measured draft step is %d; it must be 0 or 1", d.step));
    if (d.step == 0) first[d.context] = d.seconds;
  }
  const Exclusive exclusive(*this);
  CostModel& costs = depth_estimates_.costs;
  // Medians of several samples each: as good as a few single times. The first contexts come last,
  // so that the estimate ends where most texts begin.
  for (int repeat = 0; repeat < 3; ++repeat) {
    for (auto v = verify.rbegin(); v != verify.rend(); ++v)
      costs.observe_verify(v->rows, kv_share(v->context), v->seconds);
    for (auto d = draft.rbegin(); d != draft.rend(); ++d) {
      if (d->step == 0)
        costs.observe_draft(1, kv_share(d->context), d->seconds);
      else if (const auto one = first.find(d->context); one != first.end())
        costs.observe_draft(2, kv_share(d->context), one->second + d->seconds);
    }
  }
}

std::unique_ptr<Sequence> Engine::take_sequence(const std::vector<int32_t>& prompt) {
  const ForkWatch::Use use(watch_);
  if (!use) throw_lost_by_fork();
  std::unique_ptr<Sequence> source;
  int64_t reuse = 0;
  {
    const std::lock_guard<std::mutex> lock(sequences_mutex_);
    auto best = idle_.end();
    for (auto it = idle_.begin(); it != idle_.end(); ++it)
      if (const int64_t n = (*it)->reusable(prompt); n > reuse) {
        best = it;
        reuse = n;
      }
    if (best != idle_.end()) {
      source = std::move(*best);
      idle_.erase(best);
    }
  }
  if (!source) return new_sequence();
  // A conversation goes on where it was, but for a few tokens at its end; anything else may be
  // begun again from where the two part.
  if (source->length() - reuse > kReprocessedTokens) {
    if (std::unique_ptr<Sequence> copy = try_new_sequence()) {
      copy->copy(*source, reuse);
      give_back(std::move(source));
      return copy;
    }
  }
  source->truncate(reuse);
  return source;
}

std::unique_ptr<Sequence> Engine::try_new_sequence() {
  const ForkWatch::Use use(watch_);
  if (!use) throw_lost_by_fork();
  const int64_t bytes = full_cache_bytes(config_, options_, context_);
  KvBudget::Reservation reservation = KvBudget::take(kv_budget_, bytes);
  while (!reservation) {
    std::unique_ptr<Sequence> oldest;
    {
      const std::lock_guard<std::mutex> lock(sequences_mutex_);
      if (idle_.empty()) return nullptr;
      oldest = std::move(idle_.front());
      idle_.erase(idle_.begin());
    }
    oldest.reset();
    reservation = KvBudget::take(kv_budget_, bytes);
  }
  return std::make_unique<Sequence>(config_, *backend_, context_, max_rows(), options_.kv_f16,
                                    std::move(reservation));
}

std::unique_ptr<Sequence> Engine::new_sequence() {
  if (std::unique_ptr<Sequence> sequence = try_new_sequence()) return sequence;
  throw Error(
      ErrorKind::kMemory,
      format("the K/V caches of the sequences in use fill the budget of %lld MB, %lld MB each; "
             "close one, or open the model with a smaller context or a larger kv_budget",
             static_cast<long long>(kv_budget_->limit() / 1000000),
             static_cast<long long>(full_cache_bytes(config_, options_, context_) / 1000000)));
}

void Engine::give_back(std::unique_ptr<Sequence> sequence) noexcept {
  const ForkWatch::Use use(watch_);
  if (!use || sequence->length() == 0) return;
  const std::lock_guard<std::mutex> lock(sequences_mutex_);
  try {
    idle_.push_back(std::move(sequence));
  } catch (const std::bad_alloc&) {
  }
}

void Engine::refuse_nested() const {
  if (holder_ == std::this_thread::get_id())
    throw Error(ErrorKind::kArgument,
                "a logits processor cannot use the model that is calling it; use another one");
}

void Engine::clear_cache() {
  const ForkWatch::Use use(watch_);
  if (!use) throw_lost_by_fork();
  const std::lock_guard<std::mutex> lock(sequences_mutex_);
  idle_.clear();
}

void Engine::logits(const std::vector<int32_t>& ids, float* out) {
  check_ids(ids, 0);
  const Exclusive exclusive(*this);
  KvCache kv(config_, *backend_, context_, max_rows(), options_.kv_f16);
  Buffer hidden = backend_->alloc(max_rows() * config_.hidden);
  std::vector<BestLogit> best(static_cast<size_t>(max_rows()));
  const auto n = static_cast<int64_t>(ids.size());
  for (int64_t at = 0; at < n; at += options_.prefill_chunk) {
    const int64_t m = std::min(n - at, options_.prefill_chunk);
    target_->forward(
        {&kv, ids.data() + at, m, m, hidden.get(), best.data(), out + at * config_.vocab});
  }
}

DraftTrace Engine::draft(const std::vector<int32_t>& ids, int k) {
  if (!drafter_) throw Error(ErrorKind::kArgument, "no drafter is loaded; open the model with one");
  if (k < 1 || k > kMaxDraft)
    throw Error(ErrorKind::kArgument, format("k is %d; it must be between 1 and %d", k, kMaxDraft));
  check_ids(ids, 0);
  if (ids.size() < 2)
    throw Error(ErrorKind::kArgument,
                "drafting needs at least two tokens: the last is the pending one, and the drafter "
                "starts from the target's hidden state before it");
  const std::vector<int32_t> prompt(ids.begin(), ids.end() - 1);
  std::unique_ptr<Sequence> sequence = take_sequence(prompt);
  const Exclusive exclusive(*this);
  sequence->prefill(*target_, prompt.data(), static_cast<int64_t>(prompt.size()),
                    options_.prefill_chunk, HeadOutput::kNone, *outputs_);
  DraftTrace trace;
  const auto vocab = static_cast<size_t>(config_.vocab);
  trace.logits.assign(vocab * static_cast<size_t>(k), -std::numeric_limits<float>::infinity());
  int32_t token = ids.back();
  Chooser greedy({}, {}, static_cast<int32_t>(config_.vocab));
  const float* h = outputs_->hidden(0);
  DraftRound round(*drafter_, sequence->kv(), sequence->length(), {h, h + config_.hidden});
  for (int i = 0; i < k; ++i) {
    round.step(token);
    const int64_t n = drafter_->candidate_count();
    const int32_t* candidates = drafter_->candidates();
    float* row = trace.logits.data() + static_cast<size_t>(i) * vocab;
    for (int64_t c = 0; c < n; ++c) row[candidates ? candidates[c] : c] = drafter_->logits()[c];
    token = round.choose(greedy, TokenHistory());
    trace.tokens.push_back(token);
    trace.hidden.insert(trace.hidden.end(), round.hidden().begin(), round.hidden().end());
  }
  give_back(std::move(sequence));
  return trace;
}

}  // namespace gemtp
