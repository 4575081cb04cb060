#include "decode/session.h"

#include <algorithm>

#include "base/error.h"

namespace gemtp {

Session::Session(const Config& target, Backend& backend, int64_t context, int64_t max_rows,
                 int64_t output_rows, bool kv_f16)
    : kv_(target, backend, context, max_rows, kv_f16),
      backend_(backend),
      hidden_size_(target.hidden),
      vocab_(target.vocab),
      output_rows_(output_rows),
      hidden_(backend.alloc(output_rows * target.hidden)),
      best_(static_cast<size_t>(output_rows)) {}

int64_t Session::reusable(const std::vector<int32_t>& ids) const {
  const size_t n = std::min(ids.size(), tokens_.size());
  const auto common =
      std::mismatch(ids.begin(), ids.begin() + static_cast<int64_t>(n), tokens_.begin());
  // The last token runs in any case: its logits are wanted.
  const int64_t length =
      std::min<int64_t>(common.first - ids.begin(), static_cast<int64_t>(ids.size()) - 1);
  return kv_.can_truncate(length) ? length : 0;
}

void Session::truncate(int64_t length) {
  kv_.truncate(length);
  tokens_.resize(static_cast<size_t>(length));
}

void Session::forward(Target& target, const int32_t* ids, int64_t m, int64_t want,
                      HeadOutput head) {
  GEMTP_ASSERT(want <= output_rows_);
  if (head == HeadOutput::kLogits && !logits_) logits_ = backend_.alloc(output_rows_ * vocab_);
  target.forward(kv_, ids, m, want, hidden_.get(),
                 head == HeadOutput::kNone ? nullptr : best_.data(),
                 head == HeadOutput::kLogits ? logits_.get() : nullptr);
  tokens_.insert(tokens_.end(), ids, ids + m);
}

void Session::prefill(Target& target, const int32_t* ids, int64_t n, int64_t chunk,
                      HeadOutput head) {
  while (length() < n) {
    const int64_t left = n - length(), m = std::min(chunk, left);
    forward(target, ids + length(), m, m == left ? 1 : 0, head);
  }
}

int32_t Session::choose(int64_t row, Chooser& chooser, int64_t position,
                        const TokenHistory& history) const {
  if (chooser.takes_largest()) {
    const BestLogit& best = best_[static_cast<size_t>(row)];
    return chooser.choose_largest(best.index, best.logit, position);
  }
  return chooser.choose(logits_.get() + row * vocab_, nullptr, vocab_, position, history);
}

void Session::jump(int64_t length) {
  kv_.jump(length);
  tokens_.assign(static_cast<size_t>(length), -1);
}

}  // namespace gemtp
