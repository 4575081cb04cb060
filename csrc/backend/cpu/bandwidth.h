// Measures how fast this machine reads memory. A decoded token reads every weight once, so decoding
// is compared with this bandwidth.
#pragma once

#include <cstdint>
#include <memory>

#include "base/thread_pool.h"

namespace gemtp {

class ReadBandwidth {
 public:
  /// threads: number of reading threads. bytes: size of the buffer; 0: so large that no cache holds
  /// it (four times the last-level cache, from 512 MB to 1 GB, but at most an eighth of the
  /// machine's memory). Throws Error{kArgument} for fewer than 16 MB.
  ReadBandwidth(int threads, int64_t bytes);
  ~ReadBandwidth();

  int64_t bytes() const { return bytes_; }

  /// Returns the bytes per second of one pass over the buffer, with the number of streams that is
  /// fastest here: with plain loads, or with software prefetch some lines ahead.
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
