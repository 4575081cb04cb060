// Drafts without a model: what followed when the latest tokens were last seen. Texts repeat
// themselves where they are rewritten, quoted from or counted through, and in code.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace gemtp {

class Lookup {
 public:
  /// Tokens are pushed as they become certain: the prompt, then what is chosen.
  void push(int32_t token);

  struct Draft {
    std::vector<int32_t> tokens;
    int match =
        0;  // tokens before it that agree with those before its model, at most kLongestMatch
  };
  static constexpr int kLongestMatch = 32;

  /// The `limit` tokens that followed the longest of the latest repetitions of the end of the text,
  /// going on with themselves where the text ends. Empty: the last two tokens are new.
  const Draft& draft(int limit);

 private:
  static constexpr std::array<int, 3> kSizes = {2, 4, 8};  // of the n-grams that are remembered

  uint64_t key(int size) const;  // of the last `size` tokens
  int match(int64_t end) const;

  std::vector<int32_t> tokens_;
  // n-gram -> where it last ended, and where before that: its own last occurrence is the end of the
  // text.
  struct Ends {
    int64_t last = -1, before = -1;
  };
  std::array<std::unordered_map<uint64_t, Ends>, kSizes.size()> seen_;
  int64_t followed_ = -1;  // where the token after the latest draft's model is; -1: none
  Draft draft_;
};

}  // namespace gemtp
