// What a model can be run on: the CPU, and GPUs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace gemtp {

struct DeviceInfo {
  std::string name;         // as EngineOptions::device takes it
  std::string description;  // one line for people
};

/// Those of this build that run on this machine; the CPU is the first.
std::vector<DeviceInfo> devices();

/// The backend of a device. `device`: "cpu", "emulated", "auto" for the fastest; "" takes the
/// environment variable GEMTP_DEVICE, and without it "auto". threads and isa: those of the CPU,
/// which every device has beside it. Error{kArgument} for a device that is unknown, or not here.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads,
                                      const std::string& isa);

}  // namespace gemtp
