// GGUF files taken apart, edited and put together again: sound but for the edits, so that these get
// past the reader's first checks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fuzz.h"

namespace gemtp::fuzzing {

struct GgufParts {
  struct Key {
    std::string name;
    uint32_t type;
    std::string value;  // as encoded
  };
  struct Entry {
    std::string name;
    std::vector<uint64_t> shape;  // file order
    uint32_t type;
    std::string data;
  };
  std::vector<Key> keys;
  std::vector<Entry> tensors;

  /// Takes a sound file apart.
  static GgufParts of(const std::string& path);
  /// The file. Offsets and counts fit what it holds.
  std::string bytes() const;
};

/// Makes up to six edits that `data` chooses: of values, shapes, types, names, and the bytes of
/// tensors. A tensor's data keeps the size that its shape and type ask for, except where they are
/// absurd.
void edit(GgufParts* parts, Data& data);

/// Mutates the bytes of a file in small places, mostly behind its magic and counts, for
/// LLVMFuzzerCustomMutator().
size_t mutate_gguf(uint8_t* data, size_t size, size_t most, unsigned seed);

}  // namespace gemtp::fuzzing
