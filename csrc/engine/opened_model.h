// A model opened from its files: target, optional drafter, tokenizer and backend. It is immutable
// except for the scratch memory of its forward passes, which an Exclusive guards: one pass runs at
// a time, and it uses all threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
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
#include "model/split.h"
#include "model/target.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace gemtp {

class OpenedModel {
 public:
  /// Takes a device, which proves that it is exact, estimates the memory that the model needs and
  /// loads it. Throws Error{kFile, kModel, kArgument, kMemory, kDevice, kCancelled}.
  OpenedModel(ModelFiles files, const EngineOptions& options);

  const EngineOptions& options() const { return options_; }
  const Config& config() const { return files_.target_config; }
  const GgufFile& file() const { return *files_.target; }
  /// Why "auto" has not taken GPUs that are there: a sentence each.
  const std::vector<std::string>& refused_gpus() const { return refused_gpus_; }
  bool has_drafter() const { return drafter_ != nullptr; }
  /// Null for a model file without a tokenizer.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  /// Throws Error{kModel} for a model file without a tokenizer.
  const Tokenizer& need_tokenizer() const;
  /// Number of positions that a sequence can hold.
  int64_t context() const { return std::min(options_.context, config().context); }
  /// Hash of what determines the K/V of a text: the list of the target's tensors and the first
  /// bytes of each.
  uint64_t fingerprint() const { return fingerprint_; }
  /// Bytes of laid-out weights that one decoded token and one draft step read.
  int64_t target_bytes() const { return bytes_per_token(weights_, config()); }
  int64_t drafter_bytes() const { return bytes_per_token(drafter_weights_, drafter_config()); }
  BytesRead bytes_read() const;
  /// Bytes of K/V that a row at this position reads, relative to the bytes of weights that a token
  /// reads.
  double kv_share(int64_t position) const;

  /// Throws Error{kArgument} for an empty list or an id outside the vocabulary, and Error{kContext}
  /// if the context cannot hold the tokens and `room` further positions.
  void check_ids(const std::vector<int32_t>& ids, int64_t room) const;

  /// Makes an empty cache for `positions` positions.
  KvCache new_kv(int64_t positions) {
    return {config(), backends(), positions, options_.max_rows(), options_.kv_f16};
  }

  /// Gives one caller at a time the model's scratch memory and keeps its threads awake. stop: as
  /// for Backend::Pass. Throws Error{kArgument} in a child that was forked while an Exclusive
  /// existed.
  class Exclusive {
   public:
    explicit Exclusive(OpenedModel& model, const std::atomic<bool>* stop = nullptr)
        : lock_(model), pass_(*model.backend_, stop) {
      if (model.placement_.split()) host_pass_.emplace(model.backend_->host(), stop);
    }

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
    std::optional<Backend::Pass> host_pass_;
  };
  /// Throws Error{kArgument} if this thread has an Exclusive: a caller's function that is called by
  /// a pass would wait for that pass.
  void refuse_nested() const;
  /// Watches everything that locks or changes the model.
  ForkWatch& watch() { return watch_; }

  /// The device's: of the head, the drafter and the last layers.
  const Backend& backend() const { return *backend_; }
  const Placement& placement() const { return placement_; }
  /// Names what the costs of a pass depend on: the device, its driver and what lies there. "cpu"
  /// for the CPU.
  std::string identity() const;
  /// Layers on the device.
  int device_layers() const { return config().n_layers() - placement_.host_layers; }
  const Weights& target_weights() const { return weights_; }
  const Weights& drafter_weights() const { return drafter_weights_; }
  // To be used only within an Exclusive.
  Target& target() { return *target_; }
  Drafter& drafter() { return *drafter_; }
  Backend& backend() { return *backend_; }
  Split<Backend> backends() { return {*backend_, backend_->host(), placement_}; }

 private:
  int64_t take_device(const std::function<void()>& testing);
  int64_t take_device(const std::string& name, bool automatic,
                      const std::function<void()>& testing);
  void load(const std::function<void(int64_t bytes)>& read);
  const Config& drafter_config() const { return files_.drafter_config; }

  const ModelFiles files_;
  EngineOptions options_;
  std::vector<std::string> refused_gpus_;
  std::unique_ptr<Backend> backend_;
  Placement placement_;
  Weights weights_, drafter_weights_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<Drafter> drafter_;
  uint64_t fingerprint_ = 0;
  ForkWatch watch_;
  std::mutex mutex_;  // held by an Exclusive
  std::atomic<std::thread::id> holder_;
};

}  // namespace gemtp
