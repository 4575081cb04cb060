// What a model takes of the machine's memory, known from its files' headers before anything is
// loaded.
#pragma once

#include <cstdint>

#include "engine/model_files.h"
#include "engine/options.h"

namespace gemtp {

/// Bytes.
struct MemoryEstimate {
  int64_t weights = 0;  // packed matrices, and norms, of target and drafter
  int64_t tables = 0;   // looked up by row, in the file
  int64_t kv = 0;       // K/V cache of one sequence of `context` tokens
  int64_t scratch = 0;  // of the longest pass, logits included
  int64_t context = 0;
  int64_t sources = 0;  // of the files, that are read to lay out the matrices

  /// What must be resident; tables only if they are read into memory.
  int64_t needed(bool tables_in_file) const;
};

/// What an OpenedModel takes with one sequence at a time: the same objects, made on a storage that
/// only measures. Checks all that can be known without reading weights: Error{kFile}, and
/// Error{kModel} for a drafter that does not fit.
MemoryEstimate estimate_memory(const ModelFiles& files, const EngineOptions& options);

/// Error{kMemory}, with the figures, when the model needs more than `available` bytes (0: unknown).
void check_memory(const MemoryEstimate& estimate, const ModelFiles& files,
                  const EngineOptions& options, uint64_t available);

}  // namespace gemtp
