// The device of Metal on a stand-in for it (fake_metal.cc): memory, order, recordings, and what it
// says when something fails. Nothing here has anything to do with a real GPU.
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <string>
#include <vector>

#include "backend/gpu/emulated/kernels.h"
#include "backend/gpu/metal/kernel_source.h"
#include "backend/gpu/metal/metal_device.h"
#include "backend/gpu/metal/runtime.h"
#include "device_testing.h"

namespace {

using namespace gemtp;
using namespace gemtp::device_testing;

const Fake& fake() {
  static const Fake one("fake_metal", "GEMTP_METAL_RUNTIME", GEMTP_FAKE_METAL_LIBRARY);
  return one;
}

std::unique_ptr<GpuDevice> open() {
  fake();
  return make_metal_device();
}

void copy_floats(GpuDevice& device, uint64_t from, uint64_t to, int n) {
  ElementsArguments a{};
  a.x = Global<const float>(from);
  a.y = Global<float>(to);
  a.n = n;
  device.launch("copy", (n + 255) / 256, 1, &a, sizeof a);
}

}  // namespace

TEST_CASE("metal: the kernels' threads and arguments are those of the emulation") {
  for (const metal::KernelEntry& entry : metal::kernel_entries()) {
    CAPTURE(entry.name);
    const Kernel* kernel = find_kernel(entry.name);
    REQUIRE(kernel);
    CHECK(kernel->threads == entry.threads);
    CHECK(kernel->argument_bytes == static_cast<size_t>(entry.argument_bytes));
    CHECK(kernel->shared_bytes <= 32768);
  }
}

TEST_CASE("metal: the source has the kernels of one group") {
  std::set<std::string> modules;
  for (const metal::KernelEntry& entry : metal::kernel_entries())
    modules.insert(metal::module_of(entry.name));
  CHECK(modules.size() == 17);  // 16 formats, and common ones
  for (const std::string& module : modules) {
    CAPTURE(module);
    const std::string source = metal::source_of(module);
    CHECK(source.find("#include <metal_stdlib>\n") != std::string::npos);
    CHECK(source.find("#include \"") == std::string::npos);
    size_t listed = 0;
    for (const char* list : {"\nGPU_QUANTIZED(", "\nGPU_FLOATS("})
      for (size_t at = source.find(list); at != std::string::npos; at = source.find(list, at + 1))
        ++listed;
    CHECK(listed == (module == "common" ? 0 : 1));
    CHECK((source.find("\nGPU_KERNEL(") != std::string::npos) == (module == "common"));
  }
}

TEST_CASE("metal: work is done in order, and is done when wait() returns") {
  check_order(fake(), open, "metal");
}

TEST_CASE("metal: a recording is repeated with what its memory then holds") {
  check_recordings(fake(), open);
}

TEST_CASE("metal: more rows of blocks than a grid has elsewhere") { check_many_rows(fake(), open); }

TEST_CASE("metal: memory that is used up") {
  // 4,000,000 less 3,000,064 (its bytes to a multiple of 256), and room to align them.
  check_used_up(fake(), open, "metal (Stand-in)", 4000000 - 3000064 - 256);
}

TEST_CASE("metal: several threads allocate, read and release while work runs") {
  check_threads(fake(), open);
}

TEST_CASE("metal: macOS 14 has no residency sets, and other names for exact mathematics") {
  const Setting old(fake(), "macos", 14, 15);
  check_order(fake(), open, "metal");
  check_recordings(fake(), open);
  check_threads(fake(), open);
}

TEST_CASE("metal: more launches than a command buffer takes") {
  const Setting lazy(fake(), "lazy", 1);
  {
    constexpr int kLaunches = 1000;
    const auto device = open();
    const Floats x(*device, counted(kLaunches + 1, 1));
    const int64_t before = fake().get("command_buffers");
    for (int i = 0; i < kLaunches; ++i)
      copy_floats(*device, x.address + 4 * i, x.address + 4 * i + 4, 1);
    CHECK(x.read() == std::vector<float>(kLaunches + 1, 1.0f));
    CHECK(fake().get("command_buffers") - before == 4);
  }
  fake().check_clean();
}

TEST_CASE("metal: memory that is allocated between two launches") {
  for (const int macos : {14, 15}) {
    const Setting version(fake(), "macos", macos, 15);
    {
      const auto device = open();
      const Floats x(*device, counted(10));
      twice(*device, x);
      const uint64_t y = device->allocate(40);
      copy_floats(*device, x.address, y, 10);
      std::vector<float> got(10);
      device->read(y, got.data(), 40);
      CHECK(got == times(counted(10), 2));
      device->release(y);
    }
    fake().check_clean();
  }
}

TEST_CASE("metal: a submission is one command buffer") {
  {
    const auto device = open();
    auto* host = static_cast<float*>(device->allocate_host(40));
    Floats x(*device, counted(10));
    device->begin_recording();
    device->send(x.address, host, 40);
    for (int i = 0; i < 500; ++i) twice(*device, x);
    device->fetch(x.address, host, 40);
    const auto recording = device->end_recording();
    const int64_t buffers = fake().get("command_buffers"), launches = fake().get("launches");
    device->repeat(*recording);
    device->wait();
    CHECK(fake().get("command_buffers") == buffers + 1);
    CHECK(fake().get("launches") == launches + 501);  // what is sent first needs none
    device->release_host(host);
  }
  fake().check_clean();
}

TEST_CASE("metal: kernels are compiled when the first of their format is launched") {
  {
    const int64_t before = fake().get("libraries");
    const auto device = open();
    Floats x(*device, counted(10));
    CHECK(fake().get("libraries") == before);
    twice(*device, x);
    twice(*device, x);
    CHECK(x.read() == times(counted(10), 4));
    CHECK(fake().get("libraries") == before + 1);
  }
  fake().check_clean();
}

TEST_CASE("metal: what cannot be opened is refused with a sentence") {
  const auto refused = [](const char* name, int64_t value, int64_t otherwise, ErrorKind kind) {
    const Setting setting(fake(), name, value, otherwise);
    return error_of(kind, [] { open(); });
  };
  CHECK(refused("gpus", 0, 1, ErrorKind::kArgument) ==
        "Metal finds no GPU here; use the device cpu");
  CHECK(refused("macos", 13, 15, ErrorKind::kDevice) ==
        "this macOS is too old: gemtp needs Metal as macOS 14 has it; update the system, or use "
        "the device cpu");
  for (const int family : {0, 6})
    CHECK(refused("family", family, 7, ErrorKind::kDevice) ==
          "metal (Stand-in) is no GPU that gemtp has kernels for: they are for Apple's own, from "
          "M1 on; use the device cpu");
  fake().check_clean();
}

TEST_CASE("metal: kernels that the device does not take") {
  const auto refused = [](const char* name, int64_t value, int64_t otherwise) {
    const Setting setting(fake(), name, value, otherwise);
    const auto device = open();
    Floats x(*device, counted(10));
    return error_of(ErrorKind::kDevice, [&] { twice(*device, x); });
  };
  const std::string begin = "metal (Stand-in) does not take the kernels of gemtp (";
  const std::string end = "); please report it, and use the device cpu";
  CHECK(refused("refuse_source", 1, 0) ==
        begin + "common: 'program_source:1:1: error: as the stand-in says'" + end);
  CHECK(refused("lanes", 16, 32) ==
        begin + "norm: '16 lanes and 1024 threads are given, 32 and 256 are needed'" + end);
  CHECK(refused("threads", 128, 1024) ==
        begin + "norm: '32 lanes and 128 threads are given, 32 and 256 are needed'" + end);
  fake().check_clean();
}

TEST_CASE("metal: memory that work uses is kept until that is done") {
  const Setting lazy(fake(), "lazy", 1);
  {
    const auto device = open();
    auto* host = static_cast<float*>(device->allocate_host(4000));
    const Floats y(*device, counted(1000));
    const int64_t before = device->memory().free;
    {
      const Floats x(*device, counted(1000, 7));
      std::copy_n(counted(1000, 5).data(), 1000, host);
      twice(*device, x);
      device->send(y.address, host, 4000);
      device->release_host(host);
    }
    CHECK(device->memory().free < before);
    CHECK(y.read() == counted(1000, 5));
    CHECK(device->memory().free > before - 100000);  // what is left are arguments
  }
  fake().check_clean();
}

TEST_CASE("metal: a GPU that is lost says so from then on, and can be opened again") {
  {
    const auto device = open();
    Floats x(*device, counted(1000));
    auto* host = static_cast<float*>(device->allocate_host(4000));
    twice(*device, x);
    device->wait();
    fake().set("lose_at", 1);
    twice(*device, x);
    const std::string said = error_of(ErrorKind::kDevice, [&] { device->wait(); });
    CHECK(said ==
          "metal (Stand-in) has failed: Caused GPU Hang Error "
          "(00000003:kIOGPUCommandBufferCallbackErrorHang); open the model again, or on the "
          "device cpu");
    const int64_t calls = fake().get("calls");
    CHECK(error_of(ErrorKind::kDevice, [&] { device->wait(); }) == said);
    CHECK(error_of(ErrorKind::kDevice, [&] { device->allocate(100); }) == said);
    CHECK(error_of(ErrorKind::kDevice, [&] { device->begin_recording(); }) == said);
    CHECK(error_of(ErrorKind::kDevice, [&] { x.read(); }) == said);
    CHECK(error_of(ErrorKind::kDevice, [&] { twice(*device, x); }) == said);
    CHECK(fake().get("calls") == calls);  // it is not asked any more
    device->release_host(host);
  }
  fake().check_clean();
  {
    const auto device = open();
    Floats x(*device, counted(10));
    twice(*device, x);
    CHECK(x.read() == times(counted(10), 2));
  }
  fake().check_clean();
}

TEST_CASE("metal: a child of the process calls nothing") {
  {
    const auto device = open();
    Floats x(*device, counted(10));
    twice(*device, x);
    const pid_t child = fork();
    if (child == 0) {  // the stand-in ends a child that calls it
      int right = 0;
      try {
        device->wait();
      } catch (const Error& e) {
        right = std::string(e.what()) ==
                "metal (Stand-in) cannot be used in a child of the process that opened it; open "
                "the model in the child";
      }
      device->release(device->name().size());
      _exit(right ? 7 : 8);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 7));
    CHECK(x.read() == times(counted(10), 2));
  }
  fake().check_clean();
}

TEST_CASE("metal: the stand-in notices mistakes") {
  fake();
  const metal::Runtime& r = metal::runtime();
  const auto said = [] { return fake().complaint(); };
  {
    const metal::Pool pool;
    const metal::Owned all(r.copy_devices());
    const metal::Id device = r.element(all, 0);
    r.count(device);
    CHECK(said() == "MTLDevice does not know count");
    CHECK(r.count(nullptr) == 0);
    CHECK(said() == "");
    const metal::Owned queue(r.new_queue(device)), fence(r.new_fence(device));
    const metal::Id buffer = r.command_buffer(queue);
    r.wait(buffer);
    CHECK(said() == "somebody waits for what is not committed");
    const metal::Id encoder = r.encoder(buffer, metal::kConcurrent);
    r.wait_for_fence(encoder, fence);
    CHECK(said() == "a fence is awaited that nothing updates");
    r.dispatch(encoder, {1, 1, 1}, {256, 1, 1});
    CHECK(said() == "a kernel is launched without a pipeline or its arguments");
    r.commit(buffer);
    CHECK(said() == "a command buffer is committed before its encoder has ended");
    r.end_encoding(encoder);
    r.wait(buffer);
    r.commit(buffer);
    CHECK(said() == "a command buffer is committed twice");
    const metal::Id gone = r.new_fence(device);
    r.release(gone);
    r.update_fence(gone, fence);
    CHECK(said() == "updateFence: was sent to an object that is gone");
    r.release(gone);
    CHECK(said() == "an object was released that is gone");
  }
  const metal::Owned all(r.copy_devices());
  CHECK(fake().get("live") == 2);
  const metal::Owned name(r.name(r.element(all, 0)));
  CHECK(said() == "NSString was given to a thread that has no pool");
}

TEST_CASE("metal: a kernel that leaves its memory ends the device") {
  {
    const auto device = open();
    const Floats few(*device, counted(10));
    copy_floats(*device, few.address, few.address, 1 << 20);
    CHECK(error_of(ErrorKind::kDevice, [&] {
            device->wait();
          }).find("kIOGPUCommandBufferCallbackErrorPageFault") != std::string::npos);
    CHECK(fake().complaint().find("of an allocation of") != std::string::npos);
  }
  fake().check_clean();
}
