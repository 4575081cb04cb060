// The tokens so far, with the state that choosing needs.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "choose/constraint.h"

namespace gemtp {

/// The tokens so far, prompt and generated, with the counts in a sliding window that penalties use
/// and the state of a constraint. Drafting pushes its guesses and pops them again.
class TokenHistory {
 public:
  explicit TokenHistory(int32_t last_n = -1) : last_n_(last_n) {}
  void push(int32_t id);
  void pop();  // undoes the latest push
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::unordered_map<int32_t, int32_t>& counts() const { return counts_; }

  /// Tokens pushed from here on are under the constraint.
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
