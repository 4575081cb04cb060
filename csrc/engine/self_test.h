// The self-test of a GPU: whether its kernels give the CPU's bytes on this machine, with this
// driver.
#pragma once

#include <compare>
#include <cstddef>
#include <functional>
#include <set>
#include <string>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

namespace gemtp {

/// Kernels that are tested together: those of matrices of one packed format and K/V of one type.
struct TestedKernels {
  gemtp_format format = GEMTP_F32;
  bool kv_f16 = true;

  std::string name() const;  // e.g. "q4_0 f16"
  auto operator<=>(const TestedKernels&) const = default;
};

/// Every kernel.
std::set<TestedKernels> all_kernels();

/// Called before each pass of a test, which takes moments, or seconds if a driver has to compile
/// its kernels. What it throws ends the test.
using BeforePass = std::function<void()>;

/// Compares the GPU with its host's CPU: passes through small models, prompts, single rows and
/// drafts. Throws Error{kDevice} with a sentence that names the device if a byte differs or a
/// kernel fails, and passes on errors of the device.
void self_test(Backend& gpu, const std::set<TestedKernels>& kernels, const BeforePass& before);

/// The same, but for what the same GPU, driver and build has proved before, which is kept in the
/// user's folder for caches. A file there that cannot be read or written, or is not as it was
/// written, only means that the test is run.
void prove(Backend& gpu, const std::set<TestedKernels>& kernels, const BeforePass& before);

/// The result of the self-test of a device, whatever it has proved before.
struct SelfTestReport {
  std::string device;    // e.g. "cuda:0"
  std::string identity;  // the GPU and its driver
  bool exact = false;
  std::string problem;  // why it is not, a sentence
  double seconds = 0;   // without opening the device
};

/// Opens a GPU, by its name as for select_device(), but not "auto", and tests every kernel.
SelfTestReport self_test_of(const std::string& device, const BeforePass& before);

}  // namespace gemtp
