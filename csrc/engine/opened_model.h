// A model as opened from its files: target, optional drafter, tokenizer and backend. Immutable but
// for the scratch of its forward passes, which an Exclusive guards: one pass runs at a time, and it
// uses all threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "base/fork.h"
#include "draft/costs.h"
#include "engine/model_files.h"
#include "engine/options.h"
#include "model/config.h"
#include "model/drafter.h"
#include "model/kv_cache.h"
#include "model/target.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace gemtp {

class OpenedModel {
 public:
  /// Estimates what the model takes of the memory, and loads it. Error{kFile, kModel, kArgument,
  /// kMemory, kCancelled}.
  OpenedModel(ModelFiles files, const EngineOptions& options);

  const EngineOptions& options() const { return options_; }
  const Config& config() const { return files_.target_config; }
  const GgufFile& file() const { return *files_.target; }
  bool has_drafter() const { return drafter_ != nullptr; }
  /// Null for a model file without a tokenizer.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  /// Error{kModel} for a model file without a tokenizer.
  const Tokenizer& need_tokenizer() const;
  /// Positions that a sequence can hold.
  int64_t context() const { return std::min(options_.context, config().context); }
  /// Hash of what decides the K/V of a text: the target's tensors, their beginnings included.
  uint64_t fingerprint() const { return fingerprint_; }
  /// Bytes of laid-out weights that one decoded token, and one draft step, read.
  int64_t target_bytes() const { return bytes_per_token(weights_, config()); }
  int64_t drafter_bytes() const { return bytes_per_token(drafter_weights_, drafter_config()); }
  BytesRead bytes_read() const;
  /// K/V that a row at this position reads over the weights that a token reads.
  double kv_share(int64_t position) const;

  /// Error{kArgument} for an empty list or an id outside the vocabulary; Error{kContext} for more
  /// tokens than the context holds, `room` of which must stay free.
  void check_ids(const std::vector<int32_t>& ids, int64_t room) const;

  /// An empty cache for `positions` positions.
  KvCache new_kv(int64_t positions) {
    return {config(), *backend_, positions, options_.max_rows(), options_.kv_f16};
  }

  /// One caller at a time has the model's scratch and, awake, its threads. With `stop`: as for
  /// Backend::Pass. Error{kArgument} in a child that was forked while one was at work.
  class Exclusive {
   public:
    explicit Exclusive(OpenedModel& model, const std::atomic<bool>* stop = nullptr)
        : lock_(model), pass_(*model.backend_, stop) {}

   private:
    struct Lock {
      explicit Lock(OpenedModel& model);
      ~Lock();
      Lock(const Lock&) = delete;
      OpenedModel& model;
      const ForkWatch::Use use;
    };
    const Lock lock_;
    const Backend::Pass pass_;
  };
  /// Error{kArgument} in a thread that is in an Exclusive: a caller's function that a pass has
  /// called would wait for that pass.
  void refuse_nested() const;
  /// Watches all that locks and changes the model.
  ForkWatch& watch() { return watch_; }

  const Backend& backend() const { return *backend_; }
  const Weights& target_weights() const { return weights_; }
  const Weights& drafter_weights() const { return drafter_weights_; }
  // In an Exclusive.
  Target& target() { return *target_; }
  Drafter& drafter() { return *drafter_; }
  Backend& backend() { return *backend_; }

 private:
  void load(const std::function<void(int64_t bytes)>& read);
  const Config& drafter_config() const { return files_.drafter_config; }

  const ModelFiles files_;
  EngineOptions options_;
  std::unique_ptr<Backend> backend_;
  Weights weights_, drafter_weights_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<Drafter> drafter_;
  uint64_t fingerprint_ = 0;
  ForkWatch watch_;
  std::mutex mutex_;  // of an Exclusive
  std::atomic<std::thread::id> holder_;
};

}  // namespace gemtp
