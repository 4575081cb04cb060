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

/// The devices of this build that this machine can run, the fastest first.
std::vector<DeviceInfo> devices();

/// Returns the device for a name: "cpu", "emulated", or "auto" for the fastest; "" means the
/// environment variable GEMTP_DEVICE or, if it is empty or not set, "auto". Throws Error{kArgument}
/// for a device that is unknown or not available.
std::string select_device(const std::string& device);

/// Makes the backend of a device; device: as for select_device(). threads and isa: of the CPU,
/// which every device uses too.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads,
                                      const std::string& isa);

}  // namespace gemtp
