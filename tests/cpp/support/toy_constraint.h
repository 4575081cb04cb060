// A constraint for tests: the text must match a pattern of characters, in which '#' stands for any
// digit, '@' for any lower-case letter, and everything else for itself.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "choose/constraint.h"
#include "text/tokenizer.h"

namespace gemtp {

class ToyConstraint : public Constraint {
 public:
  ToyConstraint(const Tokenizer& tokenizer, std::string pattern)
      : tokenizer_(tokenizer), pattern_(std::move(pattern)) {}

  void push(const int32_t* tokens, int64_t n) override {
    for (int64_t i = 0; i < n; ++i) {
      at_.push_back(after(at_.back(), tokens[i]));
      if (at_.back() < 0) wrong_ = true;
    }
  }
  void pop(int64_t n) override {
    if (n >= static_cast<int64_t>(at_.size())) wrong_ = true;
    at_.resize(at_.size() - static_cast<size_t>(n));
  }
  void mask(uint32_t* words, int64_t) override {
    ++masks;
    for (int32_t t = 0; t < tokenizer_.vocab_size(); ++t)
      if (after(at_.back(), t) >= 0) words[t / 32] |= uint32_t{1} << (t % 32);
  }
  int64_t allowed(const int32_t* tokens, int64_t n) override {
    int64_t at = at_.back();
    for (int64_t i = 0; i < n; ++i)
      if ((at = after(at, tokens[i])) < 0) return i;
    return n;
  }
  std::vector<int32_t> forced() override {
    size_t end = static_cast<size_t>(at_.back());
    while (end < pattern_.size() && pattern_[end] != '#' && pattern_[end] != '@') ++end;
    const auto begin = static_cast<size_t>(at_.back());
    return tokenizer_.encode(pattern_.substr(begin, end - begin), false, false);
  }
  bool complete() override { return at_.back() == static_cast<int64_t>(pattern_.size()); }

  /// Whether a token was pushed that was not allowed.
  bool wrong() const { return wrong_; }
  int masks = 0;  // number of masks computed

 private:
  bool is_end(int32_t token) const {
    const std::vector<int32_t>& ends = tokenizer_.end_tokens();
    return std::binary_search(ends.begin(), ends.end(), token);
  }
  // Number of pattern characters matched after a further token; -1: the token does not fit.
  int64_t after(int64_t at, int32_t token) const {
    if (at < 0) return -1;
    const auto size = static_cast<int64_t>(pattern_.size());
    if (is_end(token)) return at == size ? at : -1;
    const std::string bytes = tokenizer_.token_bytes(token, false);
    if (bytes.empty() || at + static_cast<int64_t>(bytes.size()) > size) return -1;
    for (const char c : bytes) {
      const char p = pattern_[static_cast<size_t>(at++)];
      const bool fits = p == '#' ? c >= '0' && c <= '9' : p == '@' ? c >= 'a' && c <= 'z' : c == p;
      if (!fits) return -1;
    }
    return at;
  }

  const Tokenizer& tokenizer_;
  const std::string pattern_;
  std::vector<int64_t> at_{0};  // matched characters after each token
  bool wrong_ = false;
};

}  // namespace gemtp
