// What the target gives of the rows of a pass, and the choice of a token from it.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
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
  Outputs(const Config& target, Storage& storage, int64_t rows)
      : rows_(rows),
        hidden_size_(target.hidden),
        vocab_(target.vocab),
        storage_(storage),
        hidden_(storage.alloc(rows * target.hidden)),
        best_(static_cast<size_t>(rows)) {}

  int64_t rows() const { return rows_; }

  /// There are logits from here on: they take far more than all else.
  void need_logits() {
    if (!logits_) logits_ = storage_.alloc(rows_ * vocab_);
  }

  /// Where outputs of `s.want` rows go: to the rows from `row` on.
  void receive(int64_t row, HeadOutput head, SequenceRows* s) {
    GEMTP_ASSERT(row + s->want <= rows_);
    s->hidden = hidden_.get() + row * hidden_size_;
    s->best = head == HeadOutput::kNone ? nullptr : best_.data() + row;
    if (head == HeadOutput::kLogits) need_logits();
    s->logits = head == HeadOutput::kLogits ? logits_.get() + row * vocab_ : nullptr;
  }

  const float* hidden(int64_t row) const { return hidden_.get() + row * hidden_size_; }
  /// Of a row that was asked for HeadOutput::kLogits.
  const float* logits(int64_t row) const { return logits_.get() + row * vocab_; }

  /// The token for `position` that the chooser picks from a row's outputs: HeadOutput::kLogits, or
  /// kBest where that is all it needs.
  int32_t choose(int64_t row, Chooser& chooser, int64_t position,
                 const TokenHistory& history) const {
    if (chooser.takes_largest()) {
      const BestLogit& best = best_[static_cast<size_t>(row)];
      const int32_t id = chooser.choose_largest(best.index, best.logit, position);
      if (!history.constraint() || history.constraint()->allows(id)) return id;
    }
    return chooser.choose_target(logits(row), vocab_, position, history);
  }

 private:
  int64_t rows_, hidden_size_, vocab_;
  Storage& storage_;
  Buffer hidden_;                // [rows, hidden]
  Buffer logits_;                // [rows, vocab]; null until wanted
  std::vector<BestLogit> best_;  // [rows]
};

}  // namespace gemtp
