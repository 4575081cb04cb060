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

/// The device of which the model decides: a GPU, if there is one on which it can run, or the CPU.
inline constexpr const char* kAutoDevice = "auto";

/// Returns the device for a name: "cpu", "cuda" (the first GPU), "cuda:N", "metal", "emulated", or
/// "auto"; "" means the environment variable GEMTP_DEVICE or, if it is empty or not set, "auto".
/// For "auto" it is "cpu" in a build that has no GPU to choose. Throws Error{kArgument} for a
/// device that is unknown or not available, and Error{kDevice} for a GPU or driver that is too old
/// or fails.
std::string select_device(const std::string& device);

/// The GPUs among which "auto" chooses, the preferred one first. Looking for them loads their
/// driver. What is wrong with it is added to `problems`, unless there is none.
std::vector<std::string> automatic_gpus(std::vector<std::string>& problems);

/// Makes the backend of a device; device: a result of select_device(), but not "auto". threads and
/// isa: of the CPU, which every device uses too. Throws as select_device(), and Error{kMemory}.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads,
                                      const std::string& isa);

}  // namespace gemtp
