// The device of CUDA on a stand-in for NVIDIA's driver (fake_cuda.cc): memory, order, recordings,
// and what it says when something fails. Nothing here has anything to do with a real GPU.
#include <cstring>
#include <string>
#include <vector>

#include "backend/gpu/cuda/cuda_device.h"
#include "backend/gpu/cuda/kernel_images.h"
#include "backend/gpu/emulated/kernels.h"
#include "device_testing.h"

namespace {

using namespace gemtp;
using namespace gemtp::device_testing;

const Fake& fake() {
  static const Fake one("fake_cuda", "GEMTP_CUDA_DRIVER", GEMTP_FAKE_CUDA_LIBRARY);
  return one;
}

std::unique_ptr<GpuDevice> open() {
  fake();
  return make_cuda_device(0);
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
  check_order(fake(), open, "cuda:0");
}

TEST_CASE("cuda: memory that work uses is kept until that is done") {
  const Setting lazy(fake(), "lazy", 1);
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
  fake().check_clean();
}

TEST_CASE("cuda: a recording is repeated with what its memory then holds") {
  check_recordings(fake(), open);
}

TEST_CASE("cuda: more rows of blocks than a grid has") { check_many_rows(fake(), open); }

TEST_CASE("cuda: an older driver compiles PTX") {
  const Setting old(fake(), "refuse_code", 1);
  {
    const auto device = open();
    Floats x(*device, counted(10));
    twice(*device, x);
    CHECK(x.read() == times(counted(10), 2));
  }
  fake().check_clean();
}

TEST_CASE("cuda: every generation of GPUs has kernels") {
  for (const int capability : {75, 80, 86, 87, 89, 90, 100, 103, 120, 121, 130}) {
    CAPTURE(capability);
    const Setting generation(fake(), "capability", capability, 89);
    const auto device = open();
    Floats x(*device, counted(10));
    twice(*device, x);
    CHECK(x.read() == times(counted(10), 2));
  }
  fake().check_clean();
}

TEST_CASE("cuda: what cannot be opened is refused with a sentence") {
  const auto refused = [](const char* name, int64_t value, int64_t otherwise, ErrorKind kind) {
    const Setting setting(fake(), name, value, otherwise);
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
  fake().check_clean();
}

TEST_CASE("cuda: memory that is used up") {
  check_used_up(fake(), open, "cuda:0 (Stand-in)", 1000000);
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
  fake().check_clean();
  const auto device = open();
  Floats x(*device, counted(10));
  twice(*device, x);
  CHECK(x.read() == times(counted(10), 2));
}

TEST_CASE("cuda: several threads allocate, read and release while work runs") {
  check_threads(fake(), open);
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
    device->launch("copy", 1, 1, &a, sizeof a);
    CHECK(error_of(ErrorKind::kDevice, [&] {
            device->wait();
          }).find("CUDA_ERROR_ILLEGAL_ADDRESS") != std::string::npos);
    CHECK(fake().complaint().find("reads bytes 40 to 43 of an allocation of 40") !=
          std::string::npos);
  }
  fake().check_clean();
}
