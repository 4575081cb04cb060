// What the target gives of the rows of a pass, and the choice of a token from it.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "choose/choose.h"
#include "model/target.h"

namespace gemtp {

/// What the chooser needs of the head. Under a constraint the largest logit may be of a token that
/// cannot come.
inline HeadOutput head_output(const Chooser& chooser, bool constrained = false) {
  return chooser.takes_largest() && !constrained ? HeadOutput::kBest : HeadOutput::kLogits;
}

class Outputs {
 public:
  /// For at most `rows` rows of a pass.
  Outputs(const Config& target, Storage& storage, int64_t rows)
      : rows_(rows), hidden_size_(target.hidden), vocab_(target.vocab), storage_(storage) {
    outputs_.hidden = storage.mirror<float>(rows * target.hidden);
    outputs_.best = storage.mirror<BestLogit>(rows);
  }

  int64_t rows() const { return rows_; }

  /// There are logits from here on: they take far more than all else.
  void need_logits() {
    if (!outputs_.logits) outputs_.logits = storage_.mirror<float>(rows_ * vocab_);
  }

  /// Where a pass puts what its head is to give.
  const TargetOutputs& of(HeadOutput head) {
    if (head == HeadOutput::kLogits) need_logits();
    return outputs_;
  }

  const float* hidden(int64_t row) const { return outputs_.hidden.host() + row * hidden_size_; }
  /// Of a row that was asked for HeadOutput::kLogits.
  const float* logits(int64_t row) const { return outputs_.logits.host() + row * vocab_; }

  /// The token for `position` that the chooser picks from a row's outputs: HeadOutput::kLogits, or
  /// kBest where that is all it needs.
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
