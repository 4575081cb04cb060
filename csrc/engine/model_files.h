// The files of a model: a target and, optionally, its drafter.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gguf/reader.h"
#include "model/config.h"
#include "text/tokenizer.h"

namespace gemtp {

struct ModelFiles {
  std::shared_ptr<const GgufFile> target, drafter;  // drafter may be null
  Config target_config, drafter_config;

  /// Opens the files; drafter_path may be empty. Throws Error{kFile, kModel}.
  static ModelFiles open(const std::string& target_path, const std::string& drafter_path);
  /// Throws Error{kModel} if the drafter does not fit the target.
  void check_pair() const;
};

/// Throws Error{kFile} unless the tokenizer has as many tokens as the target.
void check_tokenizer(const GgufFile& target, const Tokenizer& tokenizer, const Config& config);

/// The result of examining a single file: its config, as far as it is valid, and all problems.
struct ExaminedFile {
  Config config;                    // `arch` is empty for an unknown architecture
  std::vector<int32_t> end_tokens;  // end tokens of its tokenizer
  std::vector<std::string> problems;
};
ExaminedFile examine(const std::shared_ptr<const GgufFile>& file);

}  // namespace gemtp
