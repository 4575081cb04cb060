// Collects all problems of an object whose opening would stop at the first one.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"

namespace gemtp {

class Problems {
 public:
  void add(const std::string& sentence) {
    if (std::find(first_.begin(), first_.end(), sentence) != first_.end()) return;
    first_.size() < kMost ? first_.push_back(sentence) : void(++more_);
  }
  bool empty() const { return first_.empty(); }

  /// The problems in the order they were found, without duplicates; after the first kMost, a last
  /// sentence counts the rest.
  std::vector<std::string> sentences() const {
    std::vector<std::string> out = first_;
    if (more_) out.push_back(format("and %zu more", more_));
    return out;
  }

 private:
  static constexpr size_t kMost = 16;
  std::vector<std::string> first_;
  size_t more_ = 0;
};

/// Returns the result of `part`, one step of a larger task. With `problems`, an Error ends only
/// this step: it is added to `problems`, and the result is 0, null or empty.
template <class Part>
auto attempt(Problems* problems, const Part& part) -> decltype(part()) {
  if (!problems) return part();
  try {
    return part();
  } catch (const Error& error) {
    problems->add(error.what());
    return decltype(part())();
  }
}

}  // namespace gemtp
