#include "choose/constraint.h"

#include <algorithm>

#include "base/error.h"

namespace gemtp {

ConstrainedText::ConstrainedText(std::shared_ptr<Constraint> constraint, int64_t vocab)
    : constraint_(std::move(constraint)), vocab_(vocab) {}

void ConstrainedText::push(int32_t token) {
  if (length_ < static_cast<int64_t>(tokens_.size())) {
    if (tokens_[static_cast<size_t>(length_)] == token) {
      ++length_;
      return;
    }
    // The token differs from the one that was popped.
    if (known_ > length_) {
      constraint_->pop(known_ - length_);
      known_ = length_;
    }
    tokens_.resize(static_cast<size_t>(length_));
    for (State& s : states_)
      if (s.length > length_) s.length = -1;
  }
  tokens_.push_back(token);
  ++length_;
}

void ConstrainedText::pop() {
  GEMTP_ASSERT(length_ > 0);
  --length_;
}

// Brings the constraint to the state of the text.
void ConstrainedText::catch_up() {
  if (known_ > length_)
    constraint_->pop(known_ - length_);
  else if (known_ < length_)
    constraint_->push(tokens_.data() + known_, length_ - known_);
  known_ = length_;
}

const ConstrainedText::State& ConstrainedText::known_state() {
  State& s = state();
  if (s.length == length_) return s;
  catch_up();
  s.length = -1;
  s.complete = constraint_->complete();
  s.words.assign(static_cast<size_t>((vocab_ + 31) / 32), 0);
  constraint_->mask(s.words.data(), static_cast<int64_t>(s.words.size()));
  if (vocab_ % 32) s.words.back() &= (uint32_t{1} << (vocab_ % 32)) - 1;
  s.length = length_;
  return s;
}

const uint32_t* ConstrainedText::mask() { return known_state().words.data(); }

bool ConstrainedText::allows(int32_t token) {
  if (const State& s = state(); s.length == length_) return in_mask(s.words.data(), token);
  catch_up();
  return constraint_->allowed(&token, 1) == 1;
}

int64_t ConstrainedText::allowed(const std::vector<int32_t>& tokens) {
  if (tokens.empty()) return 0;
  catch_up();
  return constraint_->allowed(tokens.data(), static_cast<int64_t>(tokens.size()));
}

std::vector<int32_t> ConstrainedText::forced() {
  catch_up();
  return constraint_->forced();
}

bool ConstrainedText::complete() {
  if (const State& s = state(); s.length == length_) return s.complete;
  catch_up();
  return constraint_->complete();
}

}  // namespace gemtp
