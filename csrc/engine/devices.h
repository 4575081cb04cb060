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

/// The devices of this build that this machine can run, the fastest first, of those that are chosen
/// by themselves. GPUs are looked for, and their driver is loaded, only if that is asked for; what
/// is wrong with it stands in their place, as a description without a name.
std::vector<DeviceInfo> devices(bool look_for_gpus = false);

/// Returns the device for a name: "cpu", "cuda" (the first GPU), "cuda:N", "metal", "emulated", or
/// "auto", which is the CPU as long as no GPU has been tried; "" means the environment variable
/// GEMTP_DEVICE or, if it is empty or not set, "auto". Throws Error{kArgument} for a device that is
/// unknown or not available, and Error{kDevice} for a GPU or driver that is too old or fails.
std::string select_device(const std::string& device);

/// Makes the backend of a device; device: as for select_device(). threads and isa: of the CPU,
/// which every device uses too. Throws Error{kMemory}, too, for a GPU.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads,
                                      const std::string& isa);

}  // namespace gemtp
