// Tensors for which converters use different names.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "gguf/reader.h"

namespace gemtp {

/// The names of one tensor; the first is the one that we write.
using TensorNames = std::vector<std::string>;

/// The name under which the file has the tensor; the first if it has none.
inline const std::string& name_of(const TensorNames& names, const GgufFile& file) {
  const auto found = std::find_if(names.begin(), names.end(), [&](const std::string& name) {
    return file.find_tensor(name) != nullptr;
  });
  return found == names.end() ? names[0] : *found;
}

}  // namespace gemtp
