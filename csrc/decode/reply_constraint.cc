#include "decode/reply_constraint.h"

#include <algorithm>

#include "base/error.h"
#include "text/reply.h"

namespace gemtp {

ReplyConstraint::ReplyConstraint(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                                 std::shared_ptr<Constraint> answer, bool thoughts, bool calls)
    : vocab_(tokenizer.vocab_size()),
      ends_(tokenizer.end_tokens()),
      answer_(std::move(answer)),
      open_channel_(thoughts ? tokenizer.find("<|channel>") : -1),
      close_channel_(tokenizer.find("<channel|>")),
      open_call_(calls ? tokenizer.find("<|tool_call>") : -1),
      close_call_(tokenizer.find("<tool_call|>")),
      quote_(tokenizer.find("<|\"|>")),
      states_{opens_thought(tokenizer, prompt) ? State::kThought : State::kBegin} {}

bool ReplyConstraint::is_end(int32_t token) const {
  return std::binary_search(ends_.begin(), ends_.end(), token);
}

bool ReplyConstraint::free(State state) const {
  return state == State::kThought || state == State::kCall || state == State::kString;
}

bool ReplyConstraint::opens(State state, int32_t token) const {
  if (token < 0) return false;
  if (token == open_channel_) return state == State::kBegin;
  return token == open_call_ &&
         (state == State::kBegin || state == State::kReady || state == State::kCalled);
}

ReplyConstraint::State ReplyConstraint::next(State state, int32_t token) const {
  switch (state) {
    case State::kThought:
      return token == close_channel_ ? State::kReady : state;
    case State::kCall:
      return token == quote_ ? State::kString : token == close_call_ ? State::kCalled : state;
    case State::kString:
      return token == quote_ ? State::kCall : state;
    case State::kBegin:
    case State::kReady:
    case State::kCalled:
      if (opens(state, token)) return token == open_call_ ? State::kCall : State::kThought;
      return state == State::kCalled ? state : State::kAnswer;
    case State::kAnswer:
      break;
  }
  return state;
}

void ReplyConstraint::push(const int32_t* tokens, int64_t n) {
  int64_t i = 0;
  for (; i < n; ++i) {
    const State state = next(states_.back(), tokens[i]);
    if (state == State::kAnswer) break;
    states_.push_back(state);
  }
  if (i == n) return;
  states_.insert(states_.end(), static_cast<size_t>(n - i), State::kAnswer);
  answer_->push(tokens + i, n - i);
}

void ReplyConstraint::pop(int64_t n) {
  GEMTP_ASSERT(n < static_cast<int64_t>(states_.size()));
  const auto of_answer = std::count(states_.end() - n, states_.end(), State::kAnswer);
  if (of_answer) answer_->pop(of_answer);
  states_.resize(states_.size() - static_cast<size_t>(n));
}

void ReplyConstraint::mask(uint32_t* words, int64_t n) {
  const State state = states_.back();
  const auto set = [&](int32_t token, bool on) {
    const uint32_t bit = uint32_t{1} << (token & 31);
    uint32_t& word = words[token >> 5];
    word = on ? word | bit : word & ~bit;
  };
  if (free(state)) {
    std::fill(words, words + n, ~uint32_t{0});
    for (const int32_t end : ends_) set(end, false);
    return;
  }
  if (state == State::kCalled) {
    std::fill(words, words + n, 0);
    for (const int32_t end : ends_) set(end, true);
  } else {
    answer_->mask(words, n);
  }
  for (const int32_t token : {open_channel_, open_call_})
    if (opens(state, token)) set(token, true);
}

int64_t ReplyConstraint::allowed(const int32_t* tokens, int64_t n) {
  State state = states_.back();
  for (int64_t i = 0; i < n; ++i) {
    const bool ok = free(state)               ? !is_end(tokens[i])
                    : state == State::kCalled ? is_end(tokens[i]) || opens(state, tokens[i])
                                              : true;
    if (!ok) return i;
    state = next(state, tokens[i]);
    if (state == State::kAnswer) return i + answer_->allowed(tokens + i, n - i);
    if (is_end(tokens[i])) return i + 1;
  }
  return n;
}

std::vector<int32_t> ReplyConstraint::forced() {
  const State state = states_.back();
  const bool only_answer = state == State::kAnswer || (state == State::kReady && open_call_ < 0) ||
                           (state == State::kBegin && open_call_ < 0 && open_channel_ < 0);
  return only_answer ? answer_->forced() : std::vector<int32_t>{};
}

bool ReplyConstraint::complete() { return states_.back() == State::kAnswer && answer_->complete(); }

}  // namespace gemtp
