// The tokens so far, as choosing looks at them.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "choose/constraint.h"

namespace gemtp {

/// What choosing has to know of the tokens so far, prompt and generated: the counts that penalties
/// look at, of a sliding window, and where a constraint stands. Drafting pushes its guesses and
/// pops them again.
class TokenHistory {
 public:
  explicit TokenHistory(int32_t last_n = -1) : last_n_(last_n) {}
  void push(int32_t id);
  void pop();  // undoes the latest push
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::unordered_map<int32_t, int32_t>& counts() const { return counts_; }

  /// What is pushed from here on is written under the constraint.
  void constrain(ConstrainedText* text) { constraint_ = text; }
  ConstrainedText* constraint() const { return constraint_; }  // null: none

 private:
  void count(int32_t id);
  void uncount(int32_t id);

  int32_t last_n_;
  std::vector<int32_t> tokens_;
  std::unordered_map<int32_t, int32_t> counts_;
  ConstrainedText* constraint_ = nullptr;
};

}  // namespace gemtp
