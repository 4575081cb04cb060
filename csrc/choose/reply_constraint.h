// A constraint of a reply of a chat. Thoughts, and calls of tools, are free where they may come; an
// answer that is under a constraint of its own follows, or calls do, never an end without either.
// Where there is no answer, a call has to come, of one of the functions that are named.
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
  /// prompt: what the reply follows; it may have opened a thought. thoughts, calls: whether the
  /// reply may begin with some.
  ReplyConstraint(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                  std::shared_ptr<Constraint> answer, bool thoughts, bool calls);

  /// Of calls of these functions: at least one of them, and no answer. Error{kModel} for a
  /// vocabulary without the marks of calls.
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
    kReady,  // behind the thought
    kName,   // in "call:NAME{", where only some functions may be called
    kCall,
    kString,  // inside one of a call's
    kCalled,  // behind a call: another one, or the end
    kAnswer,
  };
  struct Place {
    State state;
    size_t node = 0;  // of functions_, in kName
  };

  Place next(Place place, int32_t token) const;
  bool opens(State state, int32_t token) const;  // a thought or a call
  bool may_come(Place place, int32_t token) const;
  bool free(State state) const;  // anything but an end
  bool is_end(int32_t token) const;

  const std::vector<int32_t> ends_;           // ascending
  const std::shared_ptr<Constraint> answer_;  // null: a call has to come
  const int32_t open_channel_, close_channel_, open_call_, close_call_, quote_;  // -1: none, or not
                                                                                 // allowed
  std::unique_ptr<TextChoice> functions_;  // what calls begin with; null: any may be called
  std::vector<Place> places_;              // behind each token
};

}  // namespace gemtp
