// The device of CUDA on a stand-in for NVIDIA's driver (fake_cuda.cc): memory, order, recordings,
// and what it says when something fails. Nothing here has anything to do with a real GPU.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "backend/gpu/address.h"
#include "backend/gpu/cuda/cuda_device.h"
#include "backend/gpu/cuda/kernel_images.h"
#include "backend/gpu/emulated/kernels.h"
#include "backend/gpu/kernels/arguments.h"
#include "base/error.h"
#include "fake_cuda.h"

namespace {

using namespace gemtp;
using namespace gemtp::gpu;

// The library that the device loads, too.
class Fake {
 public:
  Fake() {
    setenv("GEMTP_CUDA_DRIVER", GEMTP_FAKE_CUDA_LIBRARY, 1);
    void* library = dlopen(GEMTP_FAKE_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    REQUIRE_MESSAGE(library, dlerror());
    find(set_, library, "fake_cuda_set");
    find(get_, library, "fake_cuda_get");
    find(complaint_, library, "fake_cuda_complaint");
  }
  void set(const char* name, int64_t value) const { REQUIRE(set_(name, value)); }
  int64_t get(const char* name) const { return get_(name); }
  std::string complaint() const { return complaint_(); }

 private:
  template <class F>
  static void find(F& function, void* library, const char* name) {
    function = reinterpret_cast<F>(dlsym(library, name));
    REQUIRE(static_cast<bool>(function));
  }
  decltype(&fake_cuda_set) set_ = nullptr;
  decltype(&fake_cuda_get) get_ = nullptr;
  decltype(&fake_cuda_complaint) complaint_ = nullptr;
};

const Fake& fake() {
  static const Fake one;
  return one;
}

// A setting, for as long as it exists.
class Setting {
 public:
  Setting(const char* name, int64_t value, int64_t otherwise = 0)
      : name_(name), otherwise_(otherwise) {
    fake().set(name, value);
  }
  ~Setting() { fake().set(name_, otherwise_); }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  const char* name_;
  const int64_t otherwise_;
};

std::unique_ptr<GpuDevice> open() {
  fake();
  return make_cuda_device(0);
}

// What was called was right, and nothing is left.
void check_clean() {
  CHECK(fake().complaint() == "");
  CHECK(fake().get("live") == 0);
}

template <class F>
std::string error_of(ErrorKind kind, const F& f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK(e.kind() == kind);
    return e.what();
  }
  FAIL("no error");
  return "";
}

std::vector<float> counted(int n, float first = 0) {
  std::vector<float> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), first);
  return out;
}

// Memory of the device with n floats.
struct Floats {
  GpuDevice& device;
  const int n;
  const uint64_t address;
  Floats(GpuDevice& d, const std::vector<float>& values)
      : device(d), n(static_cast<int>(values.size())), address(d.allocate(4 * n)) {
    device.write(address, values.data(), 4 * n);
  }
  ~Floats() { device.release(address); }
  std::vector<float> read() const {
    std::vector<float> out(static_cast<size_t>(n));
    device.read(address, out.data(), 4 * n);
    return out;
  }
};

// Doubles n floats.
void twice(GpuDevice& device, const Floats& x) {
  ElementsArguments a{};
  a.x = Global<const float>(x.address);
  a.y = Global<float>(x.address);
  a.factor = 2;
  a.n = x.n;
  device.launch("scale", (x.n + 255) / 256, 1, &a, sizeof a);
}

std::vector<float> times(std::vector<float> x, float factor) {
  for (float& v : x) v *= factor;
  return x;
}

}  // namespace

TEST_CASE("cuda: the kernels' threads and arguments are those of the emulation") {
  CHECK(cuda_is_built());
  for (const cuda::KernelEntry& entry : cuda::kernel_entries()) {
    CAPTURE(entry.name);
    const Kernel* kernel = find_kernel(entry.name);
    REQUIRE(kernel);
    CHECK(kernel->threads == entry.threads);
    CHECK(kernel->argument_bytes == static_cast<size_t>(entry.argument_bytes));
  }
}

TEST_CASE("cuda: work is done in order, and is done when wait() returns") {
  for (const char* how : {"lazy", "slow"}) {
    const Setting setting(how, 300);
    {
      const auto device = open();
      CHECK(device->name() == "cuda:0");
      auto* host = static_cast<float*>(device->allocate_host(4000));
      Floats x(*device, counted(1000));
      for (int i = 0; i < 3; ++i) twice(*device, x);
      device->fetch(x.address, host, 4000);
      device->wait();
      CHECK(std::vector<float>(host, host + 1000) == times(counted(1000), 8));
      std::fill_n(host, 1000, 1.5f);
      device->send(x.address, host, 4000);
      twice(*device, x);
      CHECK(x.read() == std::vector<float>(1000, 3.0f));
      device->release_host(host);
    }
    check_clean();
  }
}

TEST_CASE("cuda: memory that work uses is kept until that is done") {
  const Setting lazy("lazy", 1);
  {
    const auto device = open();
    auto* host = static_cast<float*>(device->allocate_host(4000));
    const Floats y(*device, counted(1000));
    {
      const Floats x(*device, counted(1000, 7));
      std::copy_n(counted(1000, 5).data(), 1000, host);
      device->send(y.address, host, 4000);
      twice(*device, x);
      device->release_host(host);
    }
    CHECK(fake().get("live") == 1 + 1 + 2 + 1 + 1);  // context, stream, x and y, host, module
    CHECK(y.read() == counted(1000, 5));
    CHECK(fake().get("live") == 1 + 1 + 1 + 1);
  }
  check_clean();
}

TEST_CASE("cuda: a recording is repeated with what its memory then holds") {
  const Setting lazy("lazy", 1);
  {
    const auto device = open();
    auto* host = static_cast<float*>(device->allocate_host(4000));
    Floats x(*device, counted(1000));
    device->begin_recording();
    device->send(x.address, host, 4000);
    twice(*device, x);
    twice(*device, x);
    device->fetch(x.address, host, 4000);
    Floats other(*device, counted(10));  // at once, although it is recorded
    CHECK(other.read() == counted(10));
    const auto recording = device->end_recording();
    CHECK(x.read() == counted(1000));
    std::copy_n(counted(1000, 3).data(), 1000, host);
    for (const float factor : {4.0f, 16.0f}) {
      device->repeat(*recording);
      device->wait();
      CHECK(std::vector<float>(host, host + 1000) == times(counted(1000, 3), factor));
    }
    device->release_host(host);
  }
  check_clean();
}

TEST_CASE("cuda: more rows of blocks than a grid has") {
  constexpr int kRows = 70000;
  {
    const auto device = open();
    const Floats x(*device, counted(kRows));
    const Floats y(*device, std::vector<float>(kRows));
    const Floats weights(*device, std::vector<float>(kRows, 0.5f));
    std::vector<int32_t> places(kRows);
    for (int i = 0; i < kRows; ++i) places[static_cast<size_t>(i)] = kRows - 1 - i;
    const uint64_t at = device->allocate(4 * kRows);
    device->write(at, places.data(), 4 * kRows);
    WeightedSumArguments a{};
    a.x = Global<const float>(x.address);
    a.places = Global<const int32_t>(at);
    a.weights = Global<const float>(weights.address);
    a.terms = a.n = 1;
    a.y = Global<float>(y.address);
    device->launch("weighted_sum", 1, kRows, &a, sizeof a);
    std::vector<float> expected = times(counted(kRows), 0.5f);
    std::reverse(expected.begin(), expected.end());
    CHECK(y.read() == expected);
    device->release(at);
  }
  check_clean();
}

TEST_CASE("cuda: an older driver compiles PTX") {
  const Setting old("refuse_code", 1);
  {
    const auto device = open();
    Floats x(*device, counted(10));
    twice(*device, x);
    CHECK(x.read() == times(counted(10), 2));
  }
  check_clean();
}

TEST_CASE("cuda: every generation of GPUs has kernels") {
  for (const int capability : {75, 80, 86, 87, 89, 90, 100, 103, 120, 121, 130}) {
    CAPTURE(capability);
    const Setting generation("capability", capability, 89);
    const auto device = open();
    Floats x(*device, counted(10));
    twice(*device, x);
    CHECK(x.read() == times(counted(10), 2));
  }
  check_clean();
}

TEST_CASE("cuda: what cannot be opened is refused with a sentence") {
  const auto refused = [](const char* name, int64_t value, int64_t otherwise, ErrorKind kind) {
    const Setting setting(name, value, otherwise);
    return error_of(kind, [] { open(); });
  };
  fake();
  CHECK(
      refused("capability", 61, 89, ErrorKind::kDevice) ==
      "cuda:0 (Stand-in) has compute capability 6.1, and 7.5 is the oldest that gemtp has kernels "
      "for; use another GPU, or the device cpu");
  CHECK(refused("taken", 1, 0, ErrorKind::kDevice) ==
        "cuda:0 (Stand-in) is taken by another process, which has it alone; end that process, or "
        "use the device cpu");
  CHECK(refused("memory", 0, int64_t{4} << 30, ErrorKind::kMemory)
            .starts_with("cuda:0 (Stand-in) has too little memory for cuDevicePrimaryCtxRetain; "));
  CHECK(error_of(ErrorKind::kArgument, [] { make_cuda_device(7); }) ==
        "the device 'cuda:7' is not here; NVIDIA's driver finds 1 GPU, from cuda:0 on");
  check_clean();
}

TEST_CASE("cuda: memory that is used up") {
  const Setting little("memory", 4000000, int64_t{4} << 30);
  {
    const auto device = open();
    const uint64_t most = device->allocate(3000000);
    CHECK(error_of(ErrorKind::kMemory, [&] { device->allocate(2000000); }) ==
          "cuda:0 (Stand-in) has no room in its memory: 0.002 GB are wanted, and 0.001 of 0.004 GB "
          "are free; use a smaller context or a smaller model, close other programs that use the "
          "GPU, or use the device cpu");
    CHECK(device->memory().free == 1000000);
    {
      // Released, but in use: it is there as soon as the work is done.
      const Setting lazy("lazy", 1);
      auto* host = static_cast<float*>(device->allocate_host(4));
      device->send(most, host, 4);
      device->release(most);
      const uint64_t again = device->allocate(2000000);
      device->release(again);
      device->release_host(host);
    }
  }
  check_clean();
}

TEST_CASE("cuda: a GPU that is lost says so from then on, and can be opened again") {
  {
    const auto device = open();
    Floats x(*device, counted(1000));
    auto* host = static_cast<float*>(device->allocate_host(4000));
    twice(*device, x);
    device->wait();
    fake().set("lose_with", 214);
    fake().set("lose_at", 2);  // the context is made current before
    const std::string said = error_of(ErrorKind::kDevice, [&] { twice(*device, x); });
    CHECK(said ==
          "cuda:0 (Stand-in) has failed: cuLaunchKernel gives CUDA_ERROR_ECC_UNCORRECTABLE (as the "
          "stand-in says); open the model again, or on the device cpu");
    const int64_t calls = fake().get("calls");
    CHECK(error_of(ErrorKind::kDevice, [&] { device->wait(); }) == said);
    CHECK(error_of(ErrorKind::kDevice, [&] { device->allocate(100); }) == said);
    CHECK(error_of(ErrorKind::kDevice, [&] { device->begin_recording(); }) == said);
    CHECK(error_of(ErrorKind::kDevice, [&] { x.read(); }) == said);
    device->release_host(host);
    CHECK(fake().get("calls") == calls);  // it is not asked any more
    fake().set("lose_with", 719);
  }
  check_clean();
  const auto device = open();
  Floats x(*device, counted(10));
  twice(*device, x);
  CHECK(x.read() == times(counted(10), 2));
}

TEST_CASE("cuda: several threads allocate, read and release while work runs") {
  const Setting slow("slow", 100);
  {
    const auto device = open();
    std::vector<std::thread> others;
    std::vector<int> right(3);
    for (size_t t = 0; t < right.size(); ++t)
      others.emplace_back([&, t] {
        for (int i = 0; i < 30; ++i) {
          const Floats mine(*device, counted(100, static_cast<float>(i)));
          right[t] += mine.read() == counted(100, static_cast<float>(i));
        }
      });
    Floats x(*device, counted(100));
    for (int i = 0; i < 20; ++i) {
      twice(*device, x);
      if (i % 5 == 0) device->wait();
    }
    for (std::thread& t : others) t.join();
    CHECK(right == std::vector<int>{30, 30, 30});
    CHECK(x.read() == times(counted(100), 0x1p20f));
  }
  check_clean();
}

TEST_CASE("cuda: the stand-in notices mistakes") {
  {
    const auto device = open();
    const uint64_t x = device->allocate(100);
    std::vector<uint8_t> host(200);
    CHECK(error_of(ErrorKind::kInternal, [&] {
            device->read(x, host.data(), 101);
          }).starts_with("internal error: cuMemcpyDtoHAsync gives CUDA_ERROR_INVALID_VALUE"));
    CHECK(fake().complaint() ==
          "cuMemcpyDtoHAsync_v2 was called for memory of the GPU that is not allocated");
    device->wait();
    device->release(x);
    device->release(x);
    CHECK(fake().complaint() == "cuMemFree_v2 was called for memory that is not allocated");
    // A kernel that leaves its memory ends the device.
    const Floats few(*device, counted(10));
    ElementsArguments a{};
    a.x = Global<const float>(few.address);
    a.y = Global<float>(few.address);
    a.n = 11;
    device->launch("scale", 1, 1, &a, sizeof a);
    CHECK(error_of(ErrorKind::kDevice, [&] {
            device->wait();
          }).find("CUDA_ERROR_ILLEGAL_ADDRESS") != std::string::npos);
    CHECK(fake().complaint().find("reads bytes 40 to 43 of an allocation of 40") !=
          std::string::npos);
  }
  check_clean();
}
