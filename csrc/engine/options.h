// The options for opening a model.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace gemtp {

struct EngineOptions {
  int threads = 0;              // 0: default_threads()
  int64_t context = 4096;       // positions per sequence; capped by the model's context length
  int64_t prefill_chunk = 512;  // rows of one prefill pass
  bool kv_f16 = true;           // K/V in f16, else f32
  bool mmap = true;             // false: tables are read into memory, not row by row
  int64_t kv_budget = 0;        // bytes for the K/V of all sequences; 0: a share of free memory
  std::string device;           // as for select_device()
  std::string gpu_layers;       // as for select_gpu_layers()
  std::string isa;              // "" : GEMTP_ISA, or the best that runs
  /// If set, called on the opening thread with the fraction that is done, from 0 to 1, never
  /// decreasing. If it returns false, opening ends with Error{kCancelled}; exceptions pass through.
  std::function<bool(double fraction)> progress;

  /// Throws Error{kArgument} for a value outside its range.
  void check() const;

  /// Maximum number of rows of one pass.
  int64_t max_rows() const;
};

/// Returns how many of a model's layers, its last ones, lie on a GPU: none for "auto", as many as
/// fit; "" means the environment variable GEMTP_GPU_LAYERS or, if it is empty or not set, "auto".
/// A number above that of the layers means all. Throws Error{kArgument} for anything but a number.
std::optional<int> select_gpu_layers(const std::string& text, int layers);

}  // namespace gemtp
