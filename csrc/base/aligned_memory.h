// Memory for weights, caches and scratch: aligned for vector loads and suited to huge pages, which
// the system hands out in a fifth of the time and which save address look-ups.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace gemtp {

/// Frees memory from allocate_aligned().
struct AlignedDeleter {
  size_t alignment = 64;
  void operator()(uint8_t* p) const;
};
using AlignedBytes = std::unique_ptr<uint8_t[], AlignedDeleter>;

/// Allocates at least `bytes` bytes on a 64-byte boundary; from 2 MB on, the boundary is 2 MB and
/// the system is asked for huge pages. The memory is not touched: pages become resident when they
/// are written. Throws std::bad_alloc.
AlignedBytes allocate_aligned(size_t bytes);

/// Allocates `bytes` zeros on a 64-byte boundary, to be freed with free_zeros(). The pages of a
/// large block become resident as they are written, so a pass over few rows does not pay for the
/// buffers of a long one. Throws std::bad_alloc.
void* allocate_zeros(size_t bytes);
void free_zeros(void* p);

/// Hands out pieces of large allocations, so that small matrices share huge pages. Each piece keeps
/// its allocation alive. Not thread-safe.
class Arena {
 public:
  /// Aligned and uninitialized like memory from allocate_aligned().
  std::shared_ptr<uint8_t> allocate(size_t bytes);

 private:
  std::shared_ptr<uint8_t> chunk_;
  size_t used_ = 0, size_ = 0;
};

}  // namespace gemtp
