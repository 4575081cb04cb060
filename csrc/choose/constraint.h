// What may be generated: the tokens that a grammar, a schema or a pattern lets come next.
//
// `Constraint` is what such a thing has to know of itself. `ConstrainedText` is a text that is
// written under one: it goes forward and back with the drafts, asks the constraint as little as
// possible, and keeps the masks of the latest positions, so that the drafter's step and the row
// that verifies it share one.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace gemtp {

/// The state of one text. Called by one thread at a time, by whichever runs the pass. Throws what
/// ends the generation.
class Constraint {
 public:
  virtual ~Constraint() = default;

  /// Goes on by tokens that may come next, one after the other.
  virtual void push(const int32_t* tokens, int64_t n) = 0;
  /// Takes back the latest n.
  virtual void pop(int64_t n) = 0;
  /// The tokens that may come next: bit t % 32 of word t / 32 for token t. End tokens are among
  /// them exactly where the text may end. words: n = ceil(vocab / 32) of them, all 0.
  virtual void mask(uint32_t* words, int64_t n) = 0;
  /// How many of the tokens may come next, one after the other.
  virtual int64_t allowed(const int32_t* tokens, int64_t n) = 0;
  /// A guess at the tokens to come where the text to come is certain, though it may be split into
  /// tokens in several ways. May be empty.
  virtual std::vector<int32_t> forced() = 0;
  /// Whether nothing but an end may come.
  virtual bool complete() = 0;
};

class ConstrainedText {
 public:
  ConstrainedText(std::shared_ptr<Constraint> constraint, int64_t vocab);

  void push(int32_t token);
  void pop();  // takes back the latest push

  /// As in Constraint, of the text as it is. The mask is valid until the next call.
  const uint32_t* mask();
  bool allows(int32_t token);
  int64_t allowed(const std::vector<int32_t>& tokens);
  std::vector<int32_t> forced();
  bool complete();

 private:
  static constexpr int64_t kStates = 32;  // masks that are kept: a round and those before it
  struct State {
    int64_t length = -1;  // of the text that was asked about
    bool complete = false;
    std::vector<uint32_t> words;  // its mask
  };

  void catch_up();
  const State& known_state();
  State& state() { return states_[static_cast<size_t>(length_ % kStates)]; }

  std::shared_ptr<Constraint> constraint_;
  const int64_t vocab_;
  // Tokens pushed, and behind `length_` of them others that were pushed and taken back: mostly they
  // come again.
  std::vector<int32_t> tokens_;
  int64_t length_ = 0;
  int64_t known_ = 0;  // of tokens_, those the constraint has been given
  std::array<State, kStates> states_;
};

inline bool in_mask(const uint32_t* mask, int32_t token) {
  return mask[token >> 5] >> (token & 31) & 1;
}

}  // namespace gemtp
