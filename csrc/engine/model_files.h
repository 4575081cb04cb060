// The files of a model: a target and, optionally, its drafter, each in its role.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gguf/reader.h"
#include "model/config.h"
#include "text/tokenizer.h"

namespace gemtp {

struct ModelFiles {
  std::shared_ptr<const GgufFile> target, drafter;  // drafter: may be null
  Config target_config, drafter_config;

  /// drafter_path may be empty. Error{kFile, kModel}.
  static ModelFiles open(const std::string& target_path, const std::string& drafter_path);
  /// Error{kModel} for a drafter that does not fit the target.
  void check_pair() const;
};

/// Error{kFile} unless a target's tokenizer is of as many tokens.
void check_tokenizer(const GgufFile& target, const Tokenizer& tokenizer, const Config& config);

/// A file seen by itself: what it says of its model, as far as it is sound, and all that is wrong.
struct ExaminedFile {
  Config config;                    // without an `arch`: of no known one
  std::vector<int32_t> end_tokens;  // of its tokenizer
  std::vector<std::string> problems;
};
ExaminedFile examine(const std::shared_ptr<const GgufFile>& file);

}  // namespace gemtp
