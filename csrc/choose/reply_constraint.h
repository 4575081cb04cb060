// A constraint on a chat reply: on its answer, on the tool calls that it may or must make, or on
// both. Thoughts are unconstrained inside. A reply whose answer is constrained, or which must call,
// never ends before that.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "choose/constraint.h"
#include "choose/text_choice.h"
#include "text/tokenizer.h"

namespace gemtp {

struct ReplyRules {
  std::shared_ptr<Constraint> answer;  // null: any answer, or none if a call is required
  /// Makes the constraint of a call, from the token after <|tool_call> to <tool_call|> included.
  /// Null: calls are unconstrained inside.
  std::function<std::shared_ptr<Constraint>()> make_call;
  /// Without make_call: the functions of which one must be called; empty: any.
  std::vector<std::string> functions;
  bool thoughts = false;  // the reply may begin with thoughts
  bool calls = false;     // the reply may make calls
  bool required = false;  // the reply must make a call
};

class ReplyConstraint : public Constraint {
 public:
  /// prompt: the tokens before the reply; they may have opened a thought. Throws Error{kModel} if a
  /// call is required and the vocabulary has no marks for calls.
  ReplyConstraint(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt, ReplyRules rules);

  void push(const int32_t* tokens, int64_t n) override;
  void pop(int64_t n) override;
  void mask(uint32_t* words, int64_t n) override;
  int64_t allowed(const int32_t* tokens, int64_t n) override;
  std::vector<int32_t> forced() override;
  bool complete() override;

 private:
  enum class State {
    kFree,   // outside of calls, if only these are constrained
    kBegin,  // anything may begin
    kThought,
    kReady,  // after the thought
    kName,   // in "call:NAME{", if only some functions may be called
    kCall,
    kString,  // inside a string of a call
    kHeld,    // in a call under a constraint
    kCalled,  // after a call: another call, or the end
    kAnswer,
  };
  struct Place {
    State state;
    size_t node = 0;  // node of functions_, in kName
  };

  Place next(Place place, int32_t token) const;
  Place call_begun() const;
  Place call_ended() const;
  bool opens(State state, int32_t token) const;  // whether the token opens a thought or a call
  bool may_come(Place place, int32_t token) const;
  bool free(State state) const;  // whether any token but an end is allowed
  bool is_end(int32_t token) const;

  const std::vector<int32_t> ends_;  // ascending
  const ReplyRules rules_;
  const int32_t open_channel_, close_channel_, open_call_, close_call_, quote_;  // -1: none, or not
                                                                                 // allowed
  std::unique_ptr<TextChoice> functions_;          // beginnings of calls; null: any function
  std::vector<Place> places_;                      // place after each token
  std::vector<std::shared_ptr<Constraint>> held_;  // of each call that was begun, in kHeld
};

}  // namespace gemtp
