// Tests of a GPU's device on the library that stands in for its driver: what every device must do.
// Nothing here has anything to do with a real GPU.
#pragma once

#include <dlfcn.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "backend/gpu/address.h"
#include "backend/gpu/gpu_device.h"
#include "backend/gpu/kernels/arguments.h"
#include "base/error.h"

namespace gemtp::device_testing {

using namespace gemtp::gpu;

/// The controls of a stand-in, in the library that the device loads, too.
class Fake {
 public:
  /// name: that its controls begin with; variable: of the environment, by which the device finds
  /// it.
  Fake(const std::string& name, const char* variable, const char* path) {
    setenv(variable, path, 1);
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    REQUIRE_MESSAGE(library, dlerror());
    find(set_, library, name + "_set");
    find(get_, library, name + "_get");
    find(complaint_, library, name + "_complaint");
  }
  void set(const char* name, int64_t value) const { REQUIRE(set_(name, value)); }
  int64_t get(const char* name) const { return get_(name); }
  std::string complaint() const { return complaint_(); }

  /// What was called was right, and nothing is left.
  void check_clean() const {
    CHECK(complaint() == "");
    CHECK(get("live") == 0);
  }

 private:
  template <class F>
  static void find(F& function, void* library, const std::string& name) {
    function = reinterpret_cast<F>(dlsym(library, name.c_str()));
    REQUIRE(static_cast<bool>(function));
  }
  int (*set_)(const char*, int64_t) = nullptr;
  int64_t (*get_)(const char*) = nullptr;
  const char* (*complaint_)() = nullptr;
};

/// A setting, for as long as it exists.
class Setting {
 public:
  Setting(const Fake& fake, const char* name, int64_t value, int64_t otherwise = 0)
      : fake_(fake), name_(name), otherwise_(otherwise) {
    fake_.set(name, value);
  }
  ~Setting() { fake_.set(name_, otherwise_); }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  const Fake& fake_;
  const char* name_;
  const int64_t otherwise_;
};

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

inline std::vector<float> counted(int n, float first = 0) {
  std::vector<float> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), first);
  return out;
}
inline std::vector<float> times(std::vector<float> x, float factor) {
  for (float& v : x) v *= factor;
  return x;
}

/// Memory of the device with n floats.
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

/// Doubles n floats: (x + norm(0 x)) * 2.
inline void twice(GpuDevice& device, const Floats& x) {
  NormArguments a{};
  a.n = x.n;
  a.branch = a.weight = a.residual = Global<const float>(x.address);
  a.before = 0;
  a.eps = 1;
  a.after = 2;
  a.y = Global<float>(x.address);
  device.launch("norm", 1, 1, &a, sizeof a);
}

using Open = std::function<std::unique_ptr<GpuDevice>()>;

inline void check_order(const Fake& fake, const Open& open, const std::string& name) {
  for (const char* how : {"lazy", "slow"}) {
    const Setting setting(fake, how, 300);
    {
      const auto device = open();
      CHECK(device->name() == name);
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
      // Behind a launch, and before one.
      twice(*device, x);
      device->fetch(x.address, host, 2000);
      device->send(x.address + 2000, host, 2000);
      twice(*device, x);
      CHECK(x.read() == std::vector<float>(1000, 12.0f));
      device->release_host(host);
    }
    fake.check_clean();
  }
}

inline void check_recordings(const Fake& fake, const Open& open) {
  const Setting lazy(fake, "lazy", 1);
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
    device->repeat(*recording);
    device->repeat(*recording);
    device->wait();
    CHECK(std::vector<float>(host, host + 1000) == times(counted(1000, 3), 256));
    device->release_host(host);
  }
  fake.check_clean();
}

inline void check_many_rows(const Fake& fake, const Open& open) {
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
  fake.check_clean();
}

/// free: of the stand-in's memory of 4,000,000 bytes, when one of 3,000,000 has been allocated.
inline void check_used_up(const Fake& fake, const Open& open, const std::string& where,
                          int64_t free) {
  const Setting little(fake, "memory", 4000000, int64_t{4} << 30);
  {
    const auto device = open();
    const uint64_t most = device->allocate(3000000);
    CHECK(device->memory().free == free);
    CHECK(error_of(ErrorKind::kMemory, [&] { device->allocate(2000000); }) ==
          where +
              " has no room in its memory: 0.002 GB are wanted, and 0.001 of 0.004 GB are free; "
              "use a smaller context or a smaller model, close other programs that use the GPU, "
              "or use the device cpu");
    // Released, but in use: it is there as soon as the work is done.
    const Setting lazy(fake, "lazy", 1);
    auto* host = static_cast<float*>(device->allocate_host(4));
    device->fetch(most, host, 4);
    device->release(most);
    CHECK(device->memory().free < 2000000);
    const uint64_t again = device->allocate(2000000);
    device->release(again);
    device->release_host(host);
  }
  fake.check_clean();
}

inline void check_threads(const Fake& fake, const Open& open) {
  const Setting slow(fake, "slow", 100);
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
  fake.check_clean();
}

}  // namespace gemtp::device_testing
