// A GPU as the backend sees it: memory, and kernels that are launched by name.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace gemtp::gpu {

class GpuDevice {
 public:
  virtual ~GpuDevice() = default;

  virtual std::string name() const = 0;  // e.g. "emulated"

  /// The address is a multiple of 256. Error{kMemory} where there is no more.
  virtual uint64_t allocate(int64_t bytes) = 0;
  virtual void release(uint64_t address) = 0;
  // Done when they return; what was launched before is done, too.
  virtual void write(uint64_t to, const void* from, int64_t bytes) = 0;
  virtual void read(uint64_t from, void* to, int64_t bytes) = 0;

  /// Enqueues blocks * rows blocks of a kernel of kernels/all.h, whose arguments are copied.
  virtual void launch(const std::string& kernel, int64_t blocks, int64_t rows,
                      const void* arguments, int64_t bytes) = 0;
  /// Until all launches are done. Error{kInternal} for a mistake in one of them.
  virtual void wait() = 0;

  /// Bytes that a quant takes in QuantizedRows, and activation rows that a matmul of many takes.
  virtual int64_t quant_bytes() const = 0;
  virtual int64_t many_rows() const = 0;
};

/// The emulated one (emulated/device.h): a test device, which runs the kernels on the CPU and
/// watches them. Null where its fibers are not written for this machine. Environment:
/// GEMTP_EMULATED_SEED, the order of blocks and threads.
std::unique_ptr<GpuDevice> make_emulated_device();

}  // namespace gemtp::gpu
