#include "text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/tokenizer.h"

namespace gemtp {
namespace {

// Length of the longest suffix of `text` that is a proper prefix of `stop`.
size_t partial_match(const std::string& text, const std::string& stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n)
    if (text.compare(text.size() - n, n, stop, 0, n) == 0) return n;
  return 0;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {
  std::erase(strings_, "");
  for (const std::string& s : strings_) {
    if (find_invalid_utf8(s) != std::string::npos)
      throw Error(ErrorKind::kArgument, "a stop string is not valid UTF-8");
  }
}

std::string StopStrings::push(const std::string& piece) {
  if (found_) return "";
  held_ += piece;
  size_t hit = std::string::npos, keep = 0;
  for (const std::string& s : strings_) {
    hit = std::min(hit, held_.find(s));
    keep = std::max(keep, partial_match(held_, s));
  }
  found_ = hit != std::string::npos;
  // A stop string is valid UTF-8, so cutting where one may begin never splits a character.
  const size_t shown = found_ ? hit : held_.size() - keep;
  std::string out = held_.substr(0, shown);
  held_.erase(0, found_ ? std::string::npos : shown);
  return out;
}

std::string StopStrings::finish() { return std::exchange(held_, ""); }

}  // namespace gemtp
