#include "choose/reply_constraint.h"

#include <algorithm>

#include "base/error.h"
#include "text/reply.h"

namespace gemtp {

ReplyConstraint::ReplyConstraint(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                                 std::shared_ptr<Constraint> answer, bool thoughts, bool calls)
    : ends_(tokenizer.end_tokens()),
      answer_(std::move(answer)),
      open_channel_(thoughts ? tokenizer.find("<|channel>") : -1),
      close_channel_(tokenizer.find("<channel|>")),
      open_call_(calls ? tokenizer.find("<|tool_call>") : -1),
      close_call_(tokenizer.find("<tool_call|>")),
      quote_(tokenizer.find("<|\"|>")),
      places_{{opens_thought(tokenizer, prompt) ? State::kThought : State::kBegin}} {}

ReplyConstraint::ReplyConstraint(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                                 const std::vector<std::string>& functions, bool thoughts)
    : ReplyConstraint(tokenizer, prompt, nullptr, thoughts, true) {
  if (open_call_ < 0 || close_call_ < 0)
    throw Error(ErrorKind::kModel,
                "the vocabulary has no <|tool_call> and <tool_call|>, so no call can be required");
  std::vector<std::string> begins;
  for (const std::string& name : functions) begins.push_back("call:" + name + "{");
  functions_ = std::make_unique<TextChoice>(tokenizer, begins);
}

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

// Whether the token may come at a place where the answer's constraint does not decide.
bool ReplyConstraint::may_come(Place place, int32_t token) const {
  if (free(place.state)) return !is_end(token);
  if (place.state == State::kName) return functions_->find(place.node, token);
  return opens(place.state, token) || (place.state == State::kCalled && is_end(token));
}

ReplyConstraint::Place ReplyConstraint::next(Place place, int32_t token) const {
  switch (place.state) {
    case State::kThought:
      return token == close_channel_ ? Place{State::kReady} : place;
    case State::kName: {
      const auto* edge = functions_->find(place.node, token);
      GEMTP_ASSERT(edge);
      return functions_->complete(edge->second) ? Place{State::kCall}
                                                : Place{State::kName, edge->second};
    }
    case State::kCall:
      return token == quote_        ? Place{State::kString}
             : token == close_call_ ? Place{State::kCalled}
                                    : place;
    case State::kString:
      return token == quote_ ? Place{State::kCall} : place;
    case State::kBegin:
    case State::kReady:
    case State::kCalled:
      if (opens(place.state, token)) {
        if (token == open_channel_) return {State::kThought};
        return functions_ ? Place{State::kName, TextChoice::kBegin} : Place{State::kCall};
      }
      return place.state == State::kCalled ? place : Place{State::kAnswer};
    case State::kAnswer:
      break;
  }
  return place;
}

void ReplyConstraint::push(const int32_t* tokens, int64_t n) {
  int64_t i = 0;
  for (; i < n; ++i) {
    const Place place = next(places_.back(), tokens[i]);
    if (place.state == State::kAnswer) break;
    places_.push_back(place);
  }
  if (i == n) return;
  GEMTP_ASSERT(answer_);
  places_.insert(places_.end(), static_cast<size_t>(n - i), Place{State::kAnswer});
  answer_->push(tokens + i, n - i);
}

void ReplyConstraint::pop(int64_t n) {
  GEMTP_ASSERT(n < static_cast<int64_t>(places_.size()));
  const auto of_answer = std::count_if(places_.end() - n, places_.end(), [](const Place& place) {
    return place.state == State::kAnswer;
  });
  if (of_answer) answer_->pop(of_answer);
  places_.resize(places_.size() - static_cast<size_t>(n), Place{State::kBegin});
}

void ReplyConstraint::mask(uint32_t* words, int64_t n) {
  const Place place = places_.back();
  const auto set = [&](int32_t token, bool on) {
    const uint32_t bit = uint32_t{1} << (token & 31);
    uint32_t& word = words[token >> 5];
    word = on ? word | bit : word & ~bit;
  };
  if (free(place.state)) {
    std::fill(words, words + n, ~uint32_t{0});
    for (const int32_t end : ends_) set(end, false);
    return;
  }
  if (place.state == State::kName) {
    for (const auto& [token, node] : functions_->edges(place.node)) set(token, true);
    return;
  }
  if (place.state == State::kCalled) {
    for (const int32_t end : ends_) set(end, true);
  } else if (answer_) {
    answer_->mask(words, n);
  }
  for (const int32_t token : {open_channel_, open_call_})
    if (opens(place.state, token)) set(token, true);
}

int64_t ReplyConstraint::allowed(const int32_t* tokens, int64_t n) {
  Place place = places_.back();
  for (int64_t i = 0; i < n; ++i) {
    if (may_come(place, tokens[i])) {
      if (is_end(tokens[i])) return i + 1;
      place = next(place, tokens[i]);
      continue;
    }
    const bool answers = place.state == State::kBegin || place.state == State::kReady ||
                         place.state == State::kAnswer;
    return answer_ && answers ? i + answer_->allowed(tokens + i, n - i) : i;
  }
  return n;
}

std::vector<int32_t> ReplyConstraint::forced() {
  Place place = places_.back();
  const bool may_begin =
      place.state == State::kReady || (place.state == State::kBegin && open_channel_ < 0);
  if (answer_)
    return place.state == State::kAnswer || (may_begin && open_call_ < 0) ? answer_->forced()
                                                                          : std::vector<int32_t>{};
  std::vector<int32_t> tokens;
  if (may_begin) {
    tokens.push_back(open_call_);
    place = next(place, open_call_);
  }
  if (place.state == State::kName) {
    const std::vector<int32_t> name = functions_->certain(place.node);
    tokens.insert(tokens.end(), name.begin(), name.end());
  }
  return tokens;
}

bool ReplyConstraint::complete() {
  return places_.back().state == State::kAnswer && answer_->complete();
}

}  // namespace gemtp
