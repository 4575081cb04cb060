// Drafts without a model: the tokens that followed the latest tokens when these last occurred.
// Texts repeat themselves when they are rewritten or quoted, in enumerations, and in code.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace gemtp {

class Lookup {
 public:
  /// Adds a token that is certain: those of the prompt, then the chosen ones.
  void push(int32_t token);

  struct Draft {
    std::vector<int32_t> tokens;
    int match = 0;  // tokens before it that match those before the copied passage
  };
  static constexpr int kLongestMatch = 32;

  /// Returns the `limit` tokens that followed the longest match among the latest earlier
  /// occurrences of the end of the text; if the text ends before that, the draft continues by
  /// repeating itself. Empty if the last two tokens have not occurred together before.
  const Draft& draft(int limit);

 private:
  static constexpr std::array<int, 3> kSizes = {2, 4, 8};  // lengths of the n-grams in the index

  uint64_t key(int size) const;  // hash of the last `size` tokens
  int match(int64_t end) const;

  std::vector<int32_t> tokens_;
  // Maps an n-gram to the end of its latest occurrence and of the one before, because the latest
  // one may be the end of the text itself.
  struct Ends {
    int64_t last = -1, before = -1;
  };
  std::array<std::unordered_map<uint64_t, Ends>, kSizes.size()> seen_;
  int64_t followed_ = -1;  // position of the passage being copied; moves on with the text; -1: none
  Draft draft_;
};

}  // namespace gemtp
