// The devices on which a model can run: the CPU, and GPUs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace gemtp {

struct DeviceInfo {
  std::string name;         // value for EngineOptions::device
  std::string description;  // one line for people
};

/// The devices of this build that this machine can run; the CPU is the first.
std::vector<DeviceInfo> devices();

/// Makes the backend of a device. device: "cpu", "emulated", or "auto" for the fastest; "" means
/// the environment variable GEMTP_DEVICE or, if it is not set, "auto". threads and isa: of the CPU,
/// which every device uses too. Throws Error{kArgument} for a device that is unknown or not
/// available.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads,
                                      const std::string& isa);

}  // namespace gemtp
