/* Preloaded, it makes a process flush subnormal floats to zero, operands and results: as GPUs do,
 * and as any library built with -ffast-math leaves the process that loads it. Threads inherit it.
 *     cc -shared -fPIC flush_to_zero.c -o flush_to_zero.so
 *     LD_PRELOAD=$PWD/flush_to_zero.so program */
#if defined(__x86_64__)
#include <xmmintrin.h>
__attribute__((constructor)) static void on(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }
#elif defined(__aarch64__)
__attribute__((constructor)) static void on(void) {
  unsigned long bits;
  __asm__ volatile("mrs %0, fpcr" : "=r"(bits));
  __asm__ volatile("msr fpcr, %0" : : "r"(bits | 1ul << 24));
}
#endif
