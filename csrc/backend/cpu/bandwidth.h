// How fast this machine reads memory. A decoded token reads every weight once, so this is what
// decoding is measured against.
#pragma once

#include <cstdint>
#include <memory>

#include "base/thread_pool.h"

namespace gemtp {

class ReadBandwidth {
 public:
  /// Reads with `threads` threads from a buffer of `bytes`; 0: large enough that no cache holds
  /// what the next pass will read (four times the last-level cache, within 512 MB and 1 GB, but no
  /// more than an eighth of the machine's memory). Error{kArgument} for fewer than 16 MB.
  ReadBandwidth(int threads, int64_t bytes);
  ~ReadBandwidth();

  int64_t bytes() const { return bytes_; }

  /// Bytes per second of one pass over the buffer in the way (of several) that is fastest here:
  /// plain loads, or loads with software prefetch some lines ahead.
  double plain() { return fastest(false); }
  double prefetched() { return fastest(true); }

 private:
  double fastest(bool prefetch);

  struct Free {
    void operator()(uint8_t* p) const;
  };
  int64_t bytes_;
  ThreadPool pool_;
  std::unique_ptr<uint8_t[], Free> buffer_;
};

}  // namespace gemtp
