// Estimates the memory that a model needs from the headers of its files, before anything is loaded,
// and how much of it a device can take.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "backend/cpu/kernels.h"
#include "engine/model_files.h"
#include "engine/options.h"
#include "model/split.h"

namespace gemtp {

/// Bytes of one memory.
struct MemoryUse {
  int64_t weights = 0;  // packed matrices and norms of target and drafter
  int64_t kv = 0;       // K/V cache of one sequence of `context` tokens
  int64_t scratch = 0;  // buffers of the longest pass, including logits
  int64_t total() const;
};

struct MemoryEstimate {
  MemoryUse device;    // of the device that runs the model: of the host, if that is the CPU
  MemoryUse host;      // what a model on a GPU has on the host, too
  int64_t tables = 0;  // tables whose rows are read from the file
  int64_t context = 0;
  int64_t sources = 0;             // bytes of the files that are read for the matrices
  std::set<gemtp_format> formats;  // of the device's matrices

  /// Bytes of the host's memory that a model on the CPU takes; tables count only if they are read
  /// into memory.
  int64_t needed(bool tables_in_file) const;
};

/// Where a model is to lie.
struct Place {
  bool gpu = false;  // on a device with memory of its own
  Placement placement = {};
};

/// Estimates the memory of an OpenedModel with one sequence, by making the same objects on storages
/// that only measure. This checks everything that can be checked without reading weights: throws
/// Error{kFile}, and Error{kModel} for a drafter that does not fit.
MemoryEstimate estimate_memory(const ModelFiles& files, const EngineOptions& options,
                               const Place& place = {});

/// Memory in which a model is to lie.
struct MemoryLimits {
  uint64_t host = 0;       // bytes that this process may use; 0: unknown
  std::string device;      // a device with memory of its own; none: the CPU
  uint64_t on_device = 0;  // its free bytes; 0: unknown
};

/// The placement on a GPU with as many layers as fit, and then as many experts; with
/// options.gpu_layers, that of so many layers. Nothing need fit.
Placement fitting_placement(const ModelFiles& files, const EngineOptions& options,
                            const MemoryLimits& limits);

/// Throws Error{kMemory}, with the figures and what would fit, if the model needs more.
void check_memory(const MemoryEstimate& estimate, const ModelFiles& files,
                  const EngineOptions& options, const MemoryLimits& limits,
                  const Placement& placement = {});

}  // namespace gemtp
