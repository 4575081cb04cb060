// Memory for weights, caches and scratch: aligned for vector loads, and offered for huge pages,
// which take a fifth of the time to be given out and spare address look-ups.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace gemtp {

/// Frees what allocate_aligned() gave.
struct AlignedDeleter {
  size_t alignment = 64;
  void operator()(uint8_t* p) const;
};
using AlignedBytes = std::unique_ptr<uint8_t[], AlignedDeleter>;

/// At least `bytes` bytes on a 64-byte boundary; from 2 MB on, on a 2 MB boundary and offered to
/// the system for huge pages. Not touched: pages become resident when they are written.
/// std::bad_alloc.
AlignedBytes allocate_aligned(size_t bytes);

/// `bytes` zeros on a 64-byte boundary, for free_zeros(). Large ones become resident as they are
/// written: a pass of few rows does not pay for the buffers of a long one. std::bad_alloc.
void* allocate_zeros(size_t bytes);
void free_zeros(void* p);

/// Hands out pieces of large allocations, so that small matrices share huge pages. Each piece keeps
/// its allocation alive. Not thread-safe.
class Arena {
 public:
  /// As allocate_aligned().
  std::shared_ptr<uint8_t> allocate(size_t bytes);

 private:
  std::shared_ptr<uint8_t> chunk_;
  size_t used_ = 0, size_ = 0;
};

}  // namespace gemtp
