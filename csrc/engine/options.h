// What a model is opened with.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace gemtp {

struct EngineOptions {
  int threads = 0;              // 0: as many as this machine profits from
  int64_t context = 4096;       // positions a sequence can hold; capped by the model's own length
  int64_t prefill_chunk = 512;  // rows of one prefill pass
  bool kv_f16 = true;           // K/V in f16, else f32
  bool mmap = true;             // false: tables are read into memory instead of by the row
  int64_t kv_budget = 0;  // bytes of the K/V caches of all sequences; 0: a share of what is free
  std::string device;     // as make_backend() takes it
  std::string isa;        // "" : GEMTP_ISA, or the best that runs
  /// If set, called on the opening thread with how much is done, from 0 to 1, never less than
  /// before. false ends it with Error{kCancelled}; what it throws comes out of opening.
  std::function<bool(double fraction)> progress;

  /// Error{kArgument} for a value outside its range.
  void check() const;

  /// Most rows of one pass.
  int64_t max_rows() const;
};

}  // namespace gemtp
