// The target's outputs for the rows of a pass, and the choice of a token from them.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "choose/choose.h"
#include "model/target.h"

namespace gemtp {

/// The outputs that the chooser needs from the head. With a constraint the token of the largest
/// logit may not be allowed.
inline HeadOutput head_output(const Chooser& chooser, bool constrained = false) {
  return chooser.takes_largest() && !constrained ? HeadOutput::kBest : HeadOutput::kLogits;
}

class Outputs {
 public:
  /// rows: the most rows of a pass that have outputs.
  Outputs(const Config& target, Storage& storage, int64_t rows)
      : rows_(rows), hidden_size_(target.hidden), vocab_(target.vocab), storage_(storage) {
    outputs_.hidden = storage.mirror<float>(rows * target.hidden);
    outputs_.best = storage.mirror<BestLogit>(rows);
  }

  int64_t rows() const { return rows_; }

  /// Allocates memory for logits, which takes far more than the other outputs.
  void need_logits() {
    if (!outputs_.logits) outputs_.logits = storage_.mirror<float>(rows_ * vocab_);
  }

  /// The outputs for a pass with this HeadOutput.
  const TargetOutputs& of(HeadOutput head) {
    if (head == HeadOutput::kLogits) need_logits();
    return outputs_;
  }

  const float* hidden(int64_t row) const { return outputs_.hidden.host() + row * hidden_size_; }
  /// [vocab]: logits of a row. The pass must have been run with HeadOutput::kLogits.
  const float* logits(int64_t row) const { return outputs_.logits.host() + row * vocab_; }

  /// Chooses the token for `position` from a row's outputs: HeadOutput::kLogits, or kBest if the
  /// chooser needs no more.
  int32_t choose(int64_t row, Chooser& chooser, int64_t position,
                 const TokenHistory& history) const {
    if (chooser.takes_largest()) {
      const BestLogit& best = outputs_.best[row];
      const int32_t id = chooser.choose_largest(best.index, best.logit, position);
      if (!history.constraint() || history.constraint()->allows(id)) return id;
    }
    return chooser.choose_target(logits(row), vocab_, position, history);
  }

 private:
  const int64_t rows_, hidden_size_, vocab_;
  Storage& storage_;
  TargetOutputs outputs_;
};

}  // namespace gemtp
