// A constraint of the answer in a reply of a chat: what comes before it, thoughts and calls of
// tools, is free, and an answer follows or calls do, never an end without either.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "decode/constraint.h"
#include "text/tokenizer.h"

namespace gemtp {

class ReplyConstraint : public Constraint {
 public:
  /// prompt: what the reply follows; it may have opened a thought. thoughts, calls: whether the
  /// reply may begin with some.
  ReplyConstraint(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                  std::shared_ptr<Constraint> answer, bool thoughts, bool calls);

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
    kCall,
    kString,  // inside one of a call's
    kCalled,  // behind a call: another one, or the end
    kAnswer,
  };
  State next(State state, int32_t token) const;
  bool opens(State state, int32_t token) const;  // a thought or a call
  bool free(State state) const;                  // anything but an end
  bool is_end(int32_t token) const;

  const int32_t vocab_;
  const std::vector<int32_t> ends_;  // ascending
  const std::shared_ptr<Constraint> answer_;
  const int32_t open_channel_, close_channel_, open_call_, close_call_, quote_;  // -1: none, or not
                                                                                 // allowed
  std::vector<State> states_;  // behind each token
};

}  // namespace gemtp
