// The emulated GPU as the backend launches on it.
#include "backend/gpu/gpu_device.h"

#include <cstdlib>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "backend/gpu/emulated/kernels.h"
#include "base/error.h"

namespace gemtp::gpu {
namespace {

// Reads an unsigned number from the environment.
uint64_t variable(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct EmulatedRecording : Recording {
  std::vector<std::function<void()>> steps;
};

// What is enqueued is done at once.
class Emulated : public GpuDevice {
 public:
  explicit Emulated(const EmulatedOptions& options)
      : device_(options.seed, options.find_races), total_(options.memory), fault_(options.fault) {}

  std::string name() const override { return "emulated"; }
  std::string identity() const override {
    return "emulated" + (fault_.empty() ? "" : " (with a fault in " + fault_ + ")");
  }
  Memory memory() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {total_ - device_.allocated(), total_};
  }

  uint64_t allocate(int64_t bytes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes > total_ - device_.allocated())
      throw Error(
          ErrorKind::kMemory,
          format("the memory of the emulated GPU is used up: %lld bytes are wanted, and %lld "
                 "of %lld are free",
                 static_cast<long long>(bytes),
                 static_cast<long long>(total_ - device_.allocated()),
                 static_cast<long long>(total_)));
    return device_.allocate(bytes);
  }
  void release(uint64_t address) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    device_.release(address);
  }
  void* allocate_host(int64_t bytes) override {
    return ::operator new(static_cast<size_t>(bytes), std::align_val_t{64});
  }
  void release_host(void* host) override { ::operator delete(host, std::align_val_t{64}); }

  void write(uint64_t to, const void* from, int64_t bytes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes) device_.write(to, from, bytes);
  }
  void read(uint64_t from, void* to, int64_t bytes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes) device_.read(from, to, bytes);
  }

  void send(uint64_t to, const void* from, int64_t bytes) override {
    enqueue([=, this] { write(to, from, bytes); });
  }
  void fetch(uint64_t from, void* to, int64_t bytes) override {
    enqueue([=, this] { read(from, to, bytes); });
  }
  void launch(const std::string& name, int64_t blocks, int64_t rows, const void* arguments,
              int64_t bytes) override {
    const Kernel* kernel = find_kernel(name);
    GEMTP_ASSERT(kernel && kernel->argument_bytes == static_cast<size_t>(bytes));
    const auto* from = static_cast<const uint8_t*>(arguments);
    enqueue([=, this, kept = std::vector<uint8_t>(from, from + bytes)] {
      const std::lock_guard<std::mutex> lock(mutex_);
      try {
        device_.launch(*kernel, static_cast<int>(blocks), static_cast<int>(rows), kept.data());
        if (fault_ == kernel->name) device_.spoil_writes();
      } catch (const KernelError& e) {
        throw Error(ErrorKind::kInternal, e.what());
      }
    });
  }
  void wait() override {}

  void begin_recording() override {
    GEMTP_ASSERT(!recording_);
    recording_ = std::make_unique<EmulatedRecording>();
  }
  std::unique_ptr<Recording> end_recording() override { return std::move(recording_); }
  void repeat(Recording& recording) override {
    GEMTP_ASSERT(!recording_);
    for (const auto& step : static_cast<EmulatedRecording&>(recording).steps) step();
  }

  int64_t quant_bytes() const override { return gpu::quant_bytes(); }

 private:
  void enqueue(std::function<void()> step) {
    if (recording_)
      recording_->steps.push_back(std::move(step));
    else
      step();
  }

  mutable std::mutex mutex_;  // K/V of a sequence is copied and released while others run
  EmulatedDevice device_;
  const int64_t total_;
  const std::string fault_;
  std::unique_ptr<EmulatedRecording> recording_;
};

}  // namespace

EmulatedOptions EmulatedOptions::of_environment() {
  EmulatedOptions out;
  out.seed = variable("GEMTP_EMULATED_SEED", out.seed);
  out.memory =
      static_cast<int64_t>(variable("GEMTP_EMULATED_MEMORY", static_cast<uint64_t>(out.memory)));
  if (const char* kernel = std::getenv("GEMTP_EMULATED_FAULT")) out.fault = kernel;
  return out;
}

std::unique_ptr<GpuDevice> make_emulated_device(const EmulatedOptions& options) {
  return std::make_unique<Emulated>(options);
}

}  // namespace gemtp::gpu
