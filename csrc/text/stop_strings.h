// Strings that end a text, found while the text comes in pieces.
#pragma once

#include <string>
#include <vector>

namespace gemtp {

class StopStrings {
 public:
  /// Empty strings count as none, as other engines have it. Error{kArgument} for one that is not
  /// valid UTF-8.
  explicit StopStrings(std::vector<std::string> strings);

  /// Adds a piece (valid UTF-8) and returns what can be shown: everything before a stop string, or
  /// all but what may be the beginning of one.
  std::string push(const std::string& piece);
  /// What is held back, when the text ends without a stop string.
  std::string finish();
  /// A stop string was found: it and what followed it are dropped.
  bool found() const { return found_; }

 private:
  std::vector<std::string> strings_;
  std::string held_;  // may be the beginning of a stop string
  bool found_ = false;
};

}  // namespace gemtp
