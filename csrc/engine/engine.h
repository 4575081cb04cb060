// An opened model: target, optional drafter, tokenizer and backend. Immutable after open() but for
// the scratch of its forward passes, which an Exclusive guards: one pass runs at a time, and it
// uses all threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "base/fork.h"
#include "draft/depth.h"
#include "engine/outputs.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "model/config.h"
#include "model/drafter.h"
#include "model/kv_cache.h"
#include "model/target.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace gemtp {

struct EngineOptions {
  int threads = 0;              // 0: default_threads()
  int64_t context = 4096;       // positions a sequence can hold; capped by the model's own length
  int64_t prefill_chunk = 512;  // rows of one prefill pass
  bool kv_f16 = true;           // K/V in f16, else f32
  bool mmap = true;             // false: tables are read into memory instead of by the row
  int64_t kv_budget = 0;  // bytes of the K/V caches of all sequences; 0: a share of what is free
  std::string isa;        // "" : GEMTP_ISA, or the best that runs
  /// Of open(), if set: called on its thread with how much is done, from 0 to 1, never less than
  /// before. false ends it with Error{kCancelled}; what it throws comes out of open().
  std::function<bool(double fraction)> progress;

  /// Error{kArgument} for a value outside its range.
  void check() const;
};

/// "0.2.0"
const char* version();
/// What compiled this build, e.g. "GCC 12.2.0".
const char* compiler();

/// Most drafts of one round.
constexpr int kMaxDraft = CostModel::kMaxRows - 1;

/// Most rows of one pass.
int64_t max_rows(const EngineOptions& options);

/// What the drafter proposed after some tokens, with its own outputs at each step.
struct DraftTrace {
  std::vector<int32_t> tokens;  // [k]
  std::vector<float> logits;    // [k, vocab]; -inf for tokens out of the running
  std::vector<float> hidden;    // [k, backbone]: the h each step hands on
};

class Engine {
 public:
  /// drafter_path may be empty. Error{kFile, kModel, kArgument, kMemory, kCancelled}.
  static std::shared_ptr<Engine> open(const std::string& target_path,
                                      const std::string& drafter_path,
                                      const EngineOptions& options);

  const EngineOptions& options() const { return options_; }
  const Config& config() const { return config_; }
  const GgufFile& file() const { return *weights_.file; }
  bool has_drafter() const { return drafter_ != nullptr; }
  /// Null for a model file without a tokenizer.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  /// Error{kModel} for a model file without a tokenizer.
  const Tokenizer& need_tokenizer() const;
  int64_t context() const { return context_; }
  std::string backend_name() const { return backend_->name(); }
  int threads() const { return backend_->threads(); }
  /// Of what decides the K/V of a text: the target's tensors, their beginnings included.
  uint64_t fingerprint() const { return fingerprint_; }
  /// Bytes of laid-out weights that one decoded token, and one draft step, read.
  int64_t target_bytes() const { return bytes_per_token(weights_, config_); }
  int64_t drafter_bytes() const { return bytes_per_token(drafter_weights_, drafter_config_); }

  /// Error{kArgument} for an empty list or an id outside the vocabulary; Error{kContext} for more
  /// tokens than the context holds, `room` of which must stay free.
  void check_ids(const std::vector<int32_t>& ids, int64_t room) const;

  /// The target's logits after each of ids, [ids, vocab] to `out`.
  void logits(const std::vector<int32_t>& ids, float* out);
  /// Greedy drafts after ids (at least two: ids.back() is the pending token of a round at position
  /// ids.size() - 1).
  DraftTrace draft(const std::vector<int32_t>& ids, int k);

  /// What passes cost, measured before: the depth control starts from it. Error{kArgument} for rows
  /// outside 1 .. 16 and for seconds that are not positive and finite.
  struct VerifyCost {
    int rows;
    int64_t context;
    double seconds;
  };
  struct DraftCost {
    int step;  // 0: the first of a round; 1: any other, known only beside a first of its context
    int64_t context;
    double seconds;
  };
  void set_costs(const std::vector<VerifyCost>& verify, const std::vector<DraftCost>& draft);

  /// A sequence that holds as much of the beginning of `prompt` as an earlier one has: that one
  /// itself if it goes on, a copy of it otherwise. give_back() keeps a sequence for later ones, as
  /// long as the budget has room for it. Error{kMemory} when sequences in use leave none.
  std::unique_ptr<Sequence> take_sequence(const std::vector<int32_t>& prompt);
  std::unique_ptr<Sequence> new_sequence();                     // empty
  void give_back(std::unique_ptr<Sequence> sequence) noexcept;  // forgets it where memory is short
  /// Forgets all that were given back.
  void clear_cache();
  int64_t kv_budget() const { return kv_budget_->limit(); }
  /// Of it, what sequences take: those in use and those that were given back.
  int64_t kv_used() const { return kv_budget_->used(); }

  /// Error{kArgument} in a thread that is in an Exclusive: a caller's function that a pass has
  /// called would wait for that pass.
  void refuse_nested() const;

  class Lock {
   public:
    explicit Lock(Engine& engine) : engine_(engine), use_(engine.watch_) {
      if (!use_) throw_lost_by_fork();
      engine.refuse_nested();
      engine.mutex_.lock();
      engine.holder_ = std::this_thread::get_id();
    }
    ~Lock() {
      engine_.holder_ = std::thread::id();
      engine_.mutex_.unlock();
    }
    Lock(const Lock&) = delete;

   private:
    Engine& engine_;
    const ForkWatch::Use use_;
  };

  /// One caller at a time has the engine: its scratch and, awake, its threads. With `stop`: as for
  /// Backend::Pass. Error{kArgument} in a child that was forked while one was at work.
  class Exclusive {
   public:
    explicit Exclusive(Engine& engine, const std::atomic<bool>* stop = nullptr)
        : lock_(engine), pass_(*engine.backend_, stop) {}

   private:
    const Lock lock_;
    const Backend::Pass pass_;
  };

  // For the decode loop, in an Exclusive.
  Target& target() { return *target_; }
  Drafter& drafter() { return *drafter_; }
  Backend& backend() { return *backend_; }
  Outputs& outputs() { return *outputs_; }
  int64_t max_rows() const { return gemtp::max_rows(options_); }  // of one pass
  DepthEstimates& depth_estimates() { return depth_estimates_; }
  Scheduler& scheduler() { return scheduler_; }  // needs no Exclusive
  /// Of all that locks and changes the engine.
  ForkWatch& watch() { return watch_; }
  /// K/V that a row at this position reads over the weights that a token reads.
  double kv_share(int64_t position) const;
  const Weights& target_weights() const { return weights_; }
  const Weights& drafter_weights() const { return drafter_weights_; }

 private:
  Engine() : scheduler_(*this) {}
  BytesRead bytes_read() const;
  std::unique_ptr<Sequence> try_new_sequence();  // null where the budget has no room

  EngineOptions options_;
  int64_t context_ = 0;
  std::unique_ptr<Backend> backend_;
  Config config_, drafter_config_;
  Weights weights_, drafter_weights_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<Drafter> drafter_;
  DepthEstimates depth_estimates_;
  std::unique_ptr<Outputs> outputs_;
  Scheduler scheduler_;
  uint64_t fingerprint_ = 0;
  ForkWatch watch_;
  std::mutex mutex_;  // of an Exclusive
  std::atomic<std::thread::id> holder_;
  std::mutex sequences_mutex_;
  std::shared_ptr<KvBudget> kv_budget_;
  std::vector<std::unique_ptr<Sequence>> idle_;  // the latest last
};

}  // namespace gemtp
