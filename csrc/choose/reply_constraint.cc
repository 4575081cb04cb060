#include "choose/reply_constraint.h"

#include <algorithm>

#include "base/error.h"
#include "text/reply.h"

namespace gemtp {

ReplyConstraint::ReplyConstraint(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                                 ReplyRules rules)
    : ends_(tokenizer.end_tokens()),
      rules_(std::move(rules)),
      open_channel_(rules_.thoughts ? tokenizer.find("<|channel>") : -1),
      close_channel_(tokenizer.find("<channel|>")),
      open_call_(rules_.calls ? tokenizer.find("<|tool_call>") : -1),
      close_call_(tokenizer.find("<tool_call|>")),
      quote_(tokenizer.find("<|\"|>")),
      places_{{!rules_.answer && !rules_.required ? State::kFree
               : opens_thought(tokenizer, prompt) ? State::kThought
                                                  : State::kBegin}} {
  if (rules_.required && (open_call_ < 0 || close_call_ < 0))
    throw Error(ErrorKind::kModel,
                "the vocabulary has no <|tool_call> and <tool_call|>, so no call can be required");
  if (rules_.make_call || rules_.functions.empty()) return;
  std::vector<std::string> begins;
  for (const std::string& name : rules_.functions) begins.push_back("call:" + name + "{");
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
         (state == State::kFree || state == State::kBegin || state == State::kThought ||
          state == State::kReady || state == State::kCalled);
}

ReplyConstraint::Place ReplyConstraint::call_begun() const {
  if (rules_.make_call) return {State::kHeld};
  return functions_ ? Place{State::kName, TextChoice::kBegin} : Place{State::kCall};
}

ReplyConstraint::Place ReplyConstraint::call_ended() const {
  return {rules_.answer || rules_.required ? State::kCalled : State::kFree};
}

// Whether the token may come at a place where the answer's constraint does not decide.
bool ReplyConstraint::may_come(Place place, int32_t token) const {
  if (place.state == State::kFree) return true;
  if (free(place.state)) return !is_end(token);
  if (place.state == State::kName) return functions_->find(place.node, token);
  return opens(place.state, token) || (place.state == State::kCalled && is_end(token));
}

ReplyConstraint::Place ReplyConstraint::next(Place place, int32_t token) const {
  switch (place.state) {
    case State::kName: {
      const auto* edge = functions_->find(place.node, token);
      GEMTP_ASSERT(edge);
      return functions_->complete(edge->second) ? Place{State::kCall}
                                                : Place{State::kName, edge->second};
    }
    case State::kCall:
      return token == quote_ ? Place{State::kString} : token == close_call_ ? call_ended() : place;
    case State::kString:
      return token == quote_ ? Place{State::kCall} : place;
    case State::kHeld:
      return token == close_call_ ? call_ended() : place;
    case State::kFree:
    case State::kBegin:
    case State::kThought:
    case State::kReady:
    case State::kCalled:
      if (opens(place.state, token))
        return token == open_channel_ ? Place{State::kThought} : call_begun();
      if (place.state == State::kThought)
        return token == close_channel_ ? Place{State::kReady} : place;
      return place.state == State::kFree || place.state == State::kCalled ? place
                                                                          : Place{State::kAnswer};
    case State::kAnswer:
      break;
  }
  return place;
}

void ReplyConstraint::push(const int32_t* tokens, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const State before = places_.back().state;
    const Place place = next(places_.back(), tokens[i]);
    if (before == State::kHeld) {
      held_.back()->push(tokens + i, 1);
    } else if (place.state == State::kHeld) {
      held_.push_back(rules_.make_call());
    } else if (place.state == State::kAnswer) {  // as are all that follow
      GEMTP_ASSERT(rules_.answer);
      rules_.answer->push(tokens + i, n - i);
      places_.insert(places_.end(), static_cast<size_t>(n - i), place);
      return;
    }
    places_.push_back(place);
  }
}

void ReplyConstraint::pop(int64_t n) {
  GEMTP_ASSERT(n < static_cast<int64_t>(places_.size()));
  const auto of_answer = std::count_if(places_.end() - n, places_.end(), [](const Place& place) {
    return place.state == State::kAnswer;
  });
  if (of_answer) rules_.answer->pop(of_answer);
  places_.resize(places_.size() - static_cast<size_t>(of_answer), Place{State::kBegin});
  for (n -= of_answer; n > 0; --n) {
    const State after = places_.back().state;
    places_.pop_back();
    if (places_.back().state == State::kHeld)
      held_.back()->pop(1);
    else if (after == State::kHeld)
      held_.pop_back();
  }
}

void ReplyConstraint::mask(uint32_t* words, int64_t n) {
  const Place place = places_.back();
  const auto set = [&](int32_t token, bool on) {
    const uint32_t bit = uint32_t{1} << (token & 31);
    uint32_t& word = words[token >> 5];
    word = on ? word | bit : word & ~bit;
  };
  if (place.state == State::kHeld) return held_.back()->mask(words, n);
  if (place.state == State::kFree || free(place.state)) {
    std::fill(words, words + n, ~uint32_t{0});
    if (place.state != State::kFree)
      for (const int32_t end : ends_) set(end, false);
    return;
  }
  if (place.state == State::kName) {
    for (const auto& [token, node] : functions_->edges(place.node)) set(token, true);
    return;
  }
  if (place.state == State::kCalled) {
    for (const int32_t end : ends_) set(end, true);
  } else if (rules_.answer) {
    rules_.answer->mask(words, n);
  }
  for (const int32_t token : {open_channel_, open_call_})
    if (opens(place.state, token)) set(token, true);
}

int64_t ReplyConstraint::allowed(const int32_t* tokens, int64_t n) {
  Place place = places_.back();
  std::shared_ptr<Constraint> held = place.state == State::kHeld ? held_.back() : nullptr;
  for (int64_t i = 0; i < n;) {
    if (place.state == State::kHeld) {
      const int32_t* end = std::find(tokens + i, tokens + n, close_call_);
      const bool ends = end != tokens + n;
      const int64_t wanted = end - (tokens + i) + ends;
      const int64_t count = held->allowed(tokens + i, wanted);
      i += count;
      if (count < wanted) return i;
      if (ends) place = call_ended();
      continue;
    }
    if (may_come(place, tokens[i])) {
      if (is_end(tokens[i])) return i + 1;
      place = next(place, tokens[i++]);
      if (place.state == State::kHeld) held = rules_.make_call();
      continue;
    }
    const bool answers = place.state == State::kBegin || place.state == State::kReady ||
                         place.state == State::kAnswer;
    return rules_.answer && answers ? i + rules_.answer->allowed(tokens + i, n - i) : i;
  }
  return n;
}

std::vector<int32_t> ReplyConstraint::forced() {
  Place place = places_.back();
  if (place.state == State::kHeld) return held_.back()->forced();
  const bool may_begin =
      place.state == State::kReady || (place.state == State::kBegin && open_channel_ < 0);
  if (!rules_.required)
    return place.state == State::kAnswer || (may_begin && open_call_ < 0) ? rules_.answer->forced()
                                                                          : std::vector<int32_t>{};
  std::vector<int32_t> tokens;
  if (may_begin) {
    tokens.push_back(open_call_);
    place = next(place, open_call_);
  }
  std::vector<int32_t> begin;
  if (place.state == State::kName) begin = functions_->certain(place.node);
  if (place.state == State::kHeld) begin = rules_.make_call()->forced();
  tokens.insert(tokens.end(), begin.begin(), begin.end());
  return tokens;
}

bool ReplyConstraint::complete() {
  return places_.back().state == State::kAnswer && rules_.answer->complete();
}

}  // namespace gemtp
