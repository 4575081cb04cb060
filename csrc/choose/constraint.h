// Constraints on the text: the tokens that a grammar, a schema or a pattern allows next.
//
// `Constraint` is the interface of such a grammar. `ConstrainedText` is a text written under a
// constraint: it moves forward and back with the drafts, calls the constraint as little as
// possible, and caches the masks of the latest positions, so that a draft step and the row that
// verifies it share a mask.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace gemtp {

/// The state of one text. It is called by one thread at a time, the one that runs the pass.
/// Exceptions end the generation.
class Constraint {
 public:
  virtual ~Constraint() = default;

  /// Appends tokens, each of which is allowed after the previous ones.
  virtual void push(const int32_t* tokens, int64_t n) = 0;
  /// Removes the latest n tokens.
  virtual void pop(int64_t n) = 0;
  /// Sets the bits of the tokens allowed next: bit t % 32 of word t / 32 for token t. End tokens
  /// are allowed exactly where the text may end. words: n = ceil(vocab / 32) words, initially 0.
  virtual void mask(uint32_t* words, int64_t n) = 0;
  /// Number of leading tokens that are allowed, one after the other.
  virtual int64_t allowed(const int32_t* tokens, int64_t n) = 0;
  /// Guesses the next tokens where the next text is certain, though it may be split into tokens in
  /// several ways. May be empty.
  virtual std::vector<int32_t> forced() = 0;
  /// Whether only an end token is allowed next.
  virtual bool complete() = 0;
};

class ConstrainedText {
 public:
  ConstrainedText(std::shared_ptr<Constraint> constraint, int64_t vocab);

  void push(int32_t token);
  void pop();  // undoes the latest push

  /// Like the functions of Constraint, for the current text. The mask is valid until the next call.
  const uint32_t* mask();
  bool allows(int32_t token);
  int64_t allowed(const std::vector<int32_t>& tokens);
  std::vector<int32_t> forced();
  bool complete();

 private:
  static constexpr int64_t kStates = 32;  // cached masks: those of a round and of earlier rounds
  struct State {
    int64_t length = -1;  // length of the text that this state belongs to
    bool complete = false;
    std::vector<uint32_t> words;  // mask of that text
  };

  void catch_up();
  const State& known_state();
  State& state() { return states_[static_cast<size_t>(length_ % kStates)]; }

  std::shared_ptr<Constraint> constraint_;
  const int64_t vocab_;
  // The pushed tokens, and after the first `length_` others that were pushed and popped, because
  // they are usually pushed again.
  std::vector<int32_t> tokens_;
  int64_t length_ = 0;
  int64_t known_ = 0;  // number of tokens_ pushed to the constraint
  std::array<State, kStates> states_;
};

inline bool in_mask(const uint32_t* mask, int32_t token) {
  return mask[token >> 5] >> (token & 31) & 1;
}

}  // namespace gemtp
