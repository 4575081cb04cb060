// An emulated GPU: memory with addresses of its own, and launches that run each thread of a block
// as a fiber. It is there to find mistakes. Blocks, and threads between two barriers, run in an
// order that a seed shuffles; memory begins as noise; an access outside of an allocation, a
// barrier or warp operation that some thread misses, and (where races are looked for) two accesses
// to a byte that nothing orders, one of them a write, end the launch with a sentence.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace gemtp::gpu {

/// What a kernel was found to do wrong.
class KernelError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Where a thread stands: of its block and, of the block, in the grid.
struct Place {
  int index = 0, warp = 0, lane = 0;
  int block = 0, row = 0;  // x and y in the grid
};

/// A kernel as the host launches it; kernels.h lists them by name.
struct Kernel {
  const char* name;
  int threads;  // of a block, a multiple of 32
  size_t argument_bytes;
  size_t shared_bytes;
  void (*run)(const void* arguments, void* shared, const Place& place);
};

class EmulatedDevice {
 public:
  explicit EmulatedDevice(uint64_t seed = 0, bool find_races = false);
  ~EmulatedDevice();
  EmulatedDevice(const EmulatedDevice&) = delete;
  EmulatedDevice& operator=(const EmulatedDevice&) = delete;

  /// Memory that holds noise. The address is a multiple of 256.
  uint64_t allocate(int64_t bytes);
  void release(uint64_t address);
  /// Bytes that are allocated.
  int64_t allocated() const { return allocated_; }
  /// KernelError where the range is not within an allocation.
  void write(uint64_t to, const void* from, int64_t bytes);
  void read(uint64_t from, void* to, int64_t bytes) const;
  /// Where the host has an allocation.
  uint8_t* host_address(uint64_t address);

  /// Runs blocks * rows blocks to their end.
  void launch(const Kernel& kernel, int blocks, int rows, const void* arguments);
  /// Changes a byte in a few of the numbers that the last launch wrote.
  void spoil_writes();

 private:
  friend struct Launch;
  struct Allocation;
  struct Threads;
  Allocation& holding(uint64_t address, int64_t bytes) const;
  uint64_t number_of(uint64_t address) const;

  std::vector<std::unique_ptr<Allocation>> allocations_;  // the first one is for the null address
  std::unique_ptr<Threads> threads_;
  uint64_t base_;  // of all addresses
  int64_t allocated_ = 0;
  // The middle bytes of some numbers that the last launch wrote, each as likely as another.
  std::array<uint8_t*, 8> written_{};
  uint64_t writes_ = 0, write_choice_ = 1;
  uint64_t random_;
  bool find_races_;
};

}  // namespace gemtp::gpu
