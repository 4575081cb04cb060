// The emulated GPU as the backend launches on it.
#include "backend/gpu/gpu_device.h"

#include <cstdlib>
#include <utility>

#include "backend/gpu/emulated/kernels.h"
#include "base/error.h"

namespace gemtp::gpu {
namespace {

class Emulated : public GpuDevice {
 public:
  explicit Emulated(uint64_t seed) : device_(seed) {}

  std::string name() const override { return "emulated"; }
  uint64_t allocate(int64_t bytes) override { return device_.allocate(bytes); }
  void release(uint64_t address) override { device_.release(address); }
  void write(uint64_t to, const void* from, int64_t bytes) override {
    if (bytes) device_.write(to, from, bytes);
  }
  void read(uint64_t from, void* to, int64_t bytes) override {
    if (bytes) device_.read(from, to, bytes);
  }
  void launch(const std::string& kernel, int64_t blocks, int64_t rows, const void* arguments,
              int64_t bytes) override {
    const Kernel* found = find_kernel(kernel);
    GEMTP_ASSERT(found && found->argument_bytes == static_cast<size_t>(bytes));
    try {
      device_.launch(*found, static_cast<int>(blocks), static_cast<int>(rows), arguments);
    } catch (const KernelError& e) {
      throw Error(ErrorKind::kInternal, e.what());
    }
  }
  void wait() override {}
  int64_t quant_bytes() const override { return gpu::quant_bytes(); }
  int64_t many_rows() const override { return gpu::many_rows(); }

 private:
  EmulatedDevice device_;
};

}  // namespace

std::unique_ptr<GpuDevice> make_emulated_device() {
  const char* seed = std::getenv("GEMTP_EMULATED_SEED");
  return std::make_unique<Emulated>(seed ? std::strtoull(seed, nullptr, 10) : 0);
}

}  // namespace gemtp::gpu
