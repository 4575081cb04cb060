// Makes the processor treat numbers below the smallest normal float as zero, like GPUs do, and like
// processes that have loaded code compiled with -ffast-math.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace gemtp {

/// While an object exists, this thread's float instructions flush their operands and results.
class FlushToZero {
 public:
  FlushToZero() : before_(get()) { set(before_ | kBits); }
  ~FlushToZero() { set(before_); }
  FlushToZero(const FlushToZero&) = delete;
  FlushToZero& operator=(const FlushToZero&) = delete;

 private:
#if defined(__x86_64__) || defined(_M_X64)
  static constexpr uint64_t kBits = 0x8040;  // FTZ and DAZ
  static uint64_t get() { return _mm_getcsr(); }
  static void set(uint64_t bits) { _mm_setcsr(static_cast<uint32_t>(bits)); }
#else
  static constexpr uint64_t kBits = 1 << 24;  // FZ
  static uint64_t get() {
    uint64_t bits;
    asm volatile("mrs %0, fpcr" : "=r"(bits) : : "memory");
    return bits;
  }
  static void set(uint64_t bits) { asm volatile("msr fpcr, %0" : : "r"(bits) : "memory"); }
#endif
  uint64_t before_;
};

}  // namespace gemtp
