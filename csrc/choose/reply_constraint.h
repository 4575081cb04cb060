// A constraint on a chat reply. Thoughts and tool calls, if allowed, are unconstrained inside. They
// are followed by an answer under its own constraint, or by calls, but never by an end without
// either. Without an answer, the reply must contain a call of one of the named functions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "choose/constraint.h"
#include "choose/text_choice.h"
#include "text/tokenizer.h"

namespace gemtp {

class ReplyConstraint : public Constraint {
 public:
  /// prompt: the tokens before the reply; they may have opened a thought. thoughts, calls: whether
  /// the reply may begin with thoughts or calls.
  ReplyConstraint(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                  std::shared_ptr<Constraint> answer, bool thoughts, bool calls);

  /// A reply of one or more calls of these functions, without an answer. Throws Error{kModel} if
  /// the vocabulary has no marks for calls.
  ReplyConstraint(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                  const std::vector<std::string>& functions, bool thoughts);

  void push(const int32_t* tokens, int64_t n) override;
  void pop(int64_t n) override;
  void mask(uint32_t* words, int64_t n) override;
  int64_t allowed(const int32_t* tokens, int64_t n) override;
  std::vector<int32_t> forced() override;
  bool complete() override;

 private:
  enum class State {
    kBegin,  // anything may begin
    kThought,
    kReady,  // after the thought
    kName,   // in "call:NAME{", if only some functions may be called
    kCall,
    kString,  // inside a string of a call
    kCalled,  // after a call: another call, or the end
    kAnswer,
  };
  struct Place {
    State state;
    size_t node = 0;  // node of functions_, in kName
  };

  Place next(Place place, int32_t token) const;
  bool opens(State state, int32_t token) const;  // whether the token opens a thought or a call
  bool may_come(Place place, int32_t token) const;
  bool free(State state) const;  // whether any token but an end is allowed
  bool is_end(int32_t token) const;

  const std::vector<int32_t> ends_;           // ascending
  const std::shared_ptr<Constraint> answer_;  // null: a call is required
  const int32_t open_channel_, close_channel_, open_call_, close_call_, quote_;  // -1: none, or not
                                                                                 // allowed
  std::unique_ptr<TextChoice> functions_;  // beginnings of calls; null: any function
  std::vector<Place> places_;              // place after each token
};

}  // namespace gemtp
