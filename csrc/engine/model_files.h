// The files of a model: a target and, optionally, its drafter, each in its role.
#pragma once

#include <memory>
#include <string>

#include "gguf/reader.h"
#include "model/config.h"

namespace gemtp {

struct ModelFiles {
  std::shared_ptr<const GgufFile> target, drafter;  // drafter: may be null
  Config target_config, drafter_config;             // as read_config() gives them

  /// drafter_path may be empty. Error{kFile, kModel}.
  static ModelFiles open(const std::string& target_path, const std::string& drafter_path);
};

}  // namespace gemtp
