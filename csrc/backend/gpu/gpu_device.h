// A GPU as the backend sees it: memory, and a queue of launches and copies that are done in order.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace gemtp::gpu {

/// Launches and copies that a device has recorded.
class Recording {
 public:
  virtual ~Recording() = default;
};

class GpuDevice {
 public:
  virtual ~GpuDevice() = default;

  virtual std::string name() const = 0;  // e.g. "emulated"
  /// Names the GPU and its driver, in one line: what kernels give could change with either.
  virtual std::string identity() const = 0;

  /// Bytes of the device's memory, and of what is free of it at the moment.
  struct Memory {
    int64_t free = 0, total = 0;
  };
  virtual Memory memory() const = 0;

  // Memory. An address is a multiple of 256. Error{kMemory} where there is no more. Memory that
  // enqueued work uses may be released; the device keeps it until the work is done.
  virtual uint64_t allocate(int64_t bytes) = 0;
  virtual void release(uint64_t address) = 0;
  /// Host memory for send() and fetch().
  virtual void* allocate_host(int64_t bytes) = 0;
  virtual void release_host(void* host) = 0;

  // At once, when all that was enqueued is done.
  virtual void write(uint64_t to, const void* from, int64_t bytes) = 0;
  virtual void read(uint64_t from, void* to, int64_t bytes) = 0;

  // Enqueued. Copies are between the device and memory of allocate_host(), which must not change,
  // or has not yet changed, until wait() returns.
  virtual void send(uint64_t to, const void* from, int64_t bytes) = 0;
  virtual void fetch(uint64_t from, void* to, int64_t bytes) = 0;
  /// blocks * rows blocks of a kernel of kernels/list.h, whose arguments are copied.
  virtual void launch(const std::string& kernel, int64_t blocks, int64_t rows,
                      const void* arguments, int64_t bytes) = 0;
  /// Waits until all that was enqueued is done. Error{kInternal} for a mistake in a launch.
  virtual void wait() = 0;

  // Between these two, launches and copies are recorded and not enqueued.
  virtual void begin_recording() = 0;
  virtual std::unique_ptr<Recording> end_recording() = 0;
  /// Enqueues what was recorded; the memory that it uses must still exist.
  virtual void repeat(Recording& recording) = 0;

  /// Bytes that a quant takes in QuantizedRows.
  virtual int64_t quant_bytes() const = 0;
};

struct EmulatedOptions {
  uint64_t seed = 0;                   // of the order of blocks and threads
  int64_t memory = int64_t{64} << 30;  // bytes that the device has
  bool find_races = false;
  std::string fault = {};  // kernel of which each launch leaves wrong bytes; "": none

  /// Those of the environment: GEMTP_EMULATED_SEED, GEMTP_EMULATED_MEMORY, GEMTP_EMULATED_FAULT.
  static EmulatedOptions of_environment();
};

/// The emulated one (emulated/device.h): a test device, which runs the kernels on the CPU and
/// watches them. Null where its fibers are not written for this machine.
std::unique_ptr<GpuDevice> make_emulated_device(
    const EmulatedOptions& options = EmulatedOptions::of_environment());

}  // namespace gemtp::gpu
