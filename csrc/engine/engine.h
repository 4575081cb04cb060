// A model ready to generate: the opened model, its sequences and the scheduler of its passes.
#pragma once

#include <memory>
#include <string>

#include "draft/depth.h"
#include "engine/opened_model.h"
#include "engine/outputs.h"
#include "engine/scheduler.h"
#include "engine/sequence_pool.h"

namespace gemtp {

class Engine {
 public:
  /// Opens a target and, unless drafter_path is empty, a drafter. Throws Error{kFile, kModel,
  /// kArgument, kMemory, kCancelled}.
  static std::shared_ptr<Engine> open(const std::string& target_path,
                                      const std::string& drafter_path,
                                      const EngineOptions& options);

  OpenedModel& model() { return model_; }
  const OpenedModel& model() const { return model_; }
  SequencePool& sequences() { return sequences_; }
  Scheduler& scheduler() { return scheduler_; }
  // To be used only within an OpenedModel::Exclusive.
  Outputs& outputs() { return outputs_; }
  DepthEstimates& depth_estimates() { return depth_estimates_; }

 private:
  Engine(ModelFiles files, const EngineOptions& options)
      : model_(std::move(files), options),
        sequences_(model_, options.kv_budget),
        outputs_(model_.config(), model_.backend(), Scheduler::kOutputRows),
        depth_estimates_(model_.bytes_read()),
        scheduler_(model_, outputs_) {}

  OpenedModel model_;
  SequencePool sequences_;
  Outputs outputs_;
  DepthEstimates depth_estimates_;
  Scheduler scheduler_;
};

}  // namespace gemtp
