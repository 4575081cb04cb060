#include "base/aligned_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gemtp {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kChunk = size_t{32} << 20;

// Under the address sanitizer every piece is a separate allocation, so that reads past its end are
// detected.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kShared = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kShared = false;
#else
constexpr bool kShared = true;
#endif
#else
constexpr bool kShared = true;
#endif

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

std::shared_ptr<uint8_t> shared(size_t bytes) {
  AlignedBytes own = allocate_aligned(bytes);
  const AlignedDeleter free = own.get_deleter();
  return {own.release(), free};
}

}  // namespace

void AlignedDeleter::operator()(uint8_t* p) const {
  ::operator delete[](p, std::align_val_t{alignment});
}

AlignedBytes allocate_aligned(size_t bytes) {
  const size_t alignment = bytes < kHugePage ? kAlignment : kHugePage;
  AlignedBytes out(
      static_cast<uint8_t*>(::operator new[](round_up(std::max<size_t>(bytes, 1), kAlignment),
                                             std::align_val_t{alignment})),
      AlignedDeleter{alignment});
#if defined(__linux__)
  if (alignment == kHugePage) ::madvise(out.get(), bytes, MADV_HUGEPAGE);  // a hint; may fail
#endif
  return out;
}

void* allocate_zeros(size_t bytes) {
  auto* raw = static_cast<uint8_t*>(std::calloc(1, bytes + 2 * kAlignment));
  if (!raw) throw std::bad_alloc();
  // The pointer to free is stored before the aligned bytes.
  uint8_t* p = raw + kAlignment;
  p += round_up(reinterpret_cast<uintptr_t>(p), kAlignment) - reinterpret_cast<uintptr_t>(p);
  std::memcpy(p - sizeof raw, &raw, sizeof raw);
  return p;
}

void free_zeros(void* p) {
  void* raw;
  std::memcpy(&raw, static_cast<uint8_t*>(p) - sizeof raw, sizeof raw);
  std::free(raw);
}

std::shared_ptr<uint8_t> Arena::allocate(size_t bytes) {
  bytes = round_up(std::max<size_t>(bytes, 1), kAlignment);
  // The unused end of a chunk is never touched, so it costs address space, not memory.
  if (!kShared || bytes > kChunk / 4) return shared(bytes);
  if (bytes > size_ - used_) {
    chunk_ = shared(kChunk);
    size_ = kChunk;
    used_ = 0;
  }
  std::shared_ptr<uint8_t> piece(chunk_, chunk_.get() + used_);
  used_ += bytes;
  return piece;
}

}  // namespace gemtp
