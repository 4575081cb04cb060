// Finds the strings that end a text, while the text arrives in pieces.
#pragma once

#include <string>
#include <vector>

namespace gemtp {

class StopStrings {
 public:
  /// Empty strings are ignored, as in other engines. Throws Error{kArgument} for a string that is
  /// not valid UTF-8.
  explicit StopStrings(std::vector<std::string> strings);

  /// Adds a piece (valid UTF-8) and returns the text that can be shown: everything before a stop
  /// string, or everything but a possible beginning of one.
  std::string push(const std::string& piece);
  /// Returns the text still held back, when the text ends without a stop string.
  std::string finish();
  /// Whether a stop string was found. It and the text after it are dropped.
  bool found() const { return found_; }

 private:
  std::vector<std::string> strings_;
  std::string held_;  // may be the beginning of a stop string
  bool found_ = false;
};

}  // namespace gemtp
