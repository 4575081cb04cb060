// Fibers: stacks of their own between which a thread switches. Linux on x86-64 and 64-bit ARM.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gemtp::gpu {

class Fiber {
 public:
  static constexpr size_t kStackBytes = 256 << 10;

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// entry(argument) begins when the fiber is next resumed; it must end with leave().
  void prepare(void (*entry)(void*), void* argument);
  /// From the scheduler: runs the fiber until it pauses or leaves.
  void resume();
  /// From the fiber: back to the scheduler, until it is resumed.
  void pause();
  [[noreturn]] void leave();

 private:
  uint8_t* stack_;
  void* top_ = nullptr;        // its stack pointer while it waits
  void* scheduler_ = nullptr;  // the scheduler's while it runs
  // For the address sanitizer, which has to know on which stack it is.
  void* fake_stack_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_bytes_ = 0;

  void arrive();
  static void begin(Fiber* fiber);
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
};

}  // namespace gemtp::gpu
