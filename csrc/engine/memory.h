// Estimates the memory that a model needs from the headers of its files, before anything is loaded.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "backend/cpu/kernels.h"
#include "engine/model_files.h"
#include "engine/options.h"

namespace gemtp {

/// Memory in bytes.
struct MemoryEstimate {
  int64_t weights = 0;  // packed matrices and norms of target and drafter
  int64_t tables = 0;   // tables whose rows are read from the file
  int64_t kv = 0;       // K/V cache of one sequence of `context` tokens
  int64_t scratch = 0;  // buffers of the longest pass, including logits
  // On a device with memory of its own:
  int64_t mirrored = 0;        // the part of the scratch that the host has, too
  int64_t device_scratch = 0;  // instead of `scratch`
  int64_t context = 0;
  int64_t sources = 0;             // bytes of the files that are read for the matrices
  std::set<gemtp_format> formats;  // of the packed matrices

  /// Bytes of the host's memory that a model on the CPU takes; tables count only if they are read
  /// into memory.
  int64_t needed(bool tables_in_file) const;
};

/// Estimates the memory of an OpenedModel with one sequence, by making the same objects on a
/// storage that only measures. This checks everything that can be checked without reading weights:
/// throws Error{kFile}, and Error{kModel} for a drafter that does not fit.
MemoryEstimate estimate_memory(const ModelFiles& files, const EngineOptions& options);

/// Memory in which a model is to lie.
struct MemoryLimits {
  uint64_t host = 0;       // bytes that this process may use; 0: unknown
  std::string device;      // a device with memory of its own; none: the CPU
  uint64_t on_device = 0;  // its free bytes; 0: unknown
};

/// Throws Error{kMemory}, with the figures, if the model needs more.
void check_memory(const MemoryEstimate& estimate, const ModelFiles& files,
                  const EngineOptions& options, const MemoryLimits& limits);

}  // namespace gemtp
