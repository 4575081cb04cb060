#include "engine/devices.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "backend/cpu/dispatch.h"
#include "backend/gpu/cuda/cuda_device.h"
#include "backend/gpu/gpu_backend.h"
#include "backend/gpu/metal/metal_device.h"
#include "base/error.h"

namespace gemtp {
namespace {

// Every device name of any build of this version.
constexpr const char* kKnown[] = {"auto", "cpu", "cuda", "metal", "emulated"};

std::string names_of(const std::vector<DeviceInfo>& devices) {
  std::string out;
  for (const DeviceInfo& d : devices) out += (out.empty() ? "" : ", ") + d.name;
  return out;
}

bool is_known(const std::string& name) {
  const std::string kind = name.substr(0, name.find(':'));
  const bool numbered = kind != name;
  if (numbered && (kind != "cuda" || name.size() == kind.size() + 1 ||
                   name.find_first_not_of("0123456789", kind.size() + 1) != std::string::npos))
    return false;
  return std::find(std::begin(kKnown), std::end(kKnown), kind) != std::end(kKnown);
}

// Tests can have "auto" choose the emulated GPU, to see what it does with one.
bool emulated_is_automatic() {
#ifdef GEMTP_HAVE_EMULATED_GPU
  const char* value = std::getenv("GEMTP_EMULATED_AUTO");
  return value && *value;
#else
  return false;
#endif
}

bool metal_may_be_here() {
#ifdef GEMTP_HAVE_METAL
  return gpu::metal_may_be_here();
#else
  return false;
#endif
}

// Whether "auto" has to look for GPUs.
bool has_automatic_gpus() {
  return emulated_is_automatic() || metal_may_be_here() || gpu::cuda_is_built();
}

// Returns the number in "cuda:N", 0 for "cuda"; one that no GPU has if it is too large.
int number_of(const std::string& name) {
  const size_t colon = name.find(':');
  if (colon == std::string::npos) return 0;
  return static_cast<int>(std::min(std::strtoul(name.c_str() + colon + 1, nullptr, 10), 1000000ul));
}

}  // namespace

std::vector<DeviceInfo> devices(bool look_for_gpus) {
  std::vector<DeviceInfo> out{{"cpu", "the processor"}};
#ifdef GEMTP_HAVE_EMULATED_GPU
  out.push_back({"emulated", "a GPU imitated on the CPU, to test the GPU's kernels: very slow"});
#endif
  if (!look_for_gpus) return out;
  const auto look = [&](const auto& find) {
    try {
      find();
    } catch (const Error& e) {
      out.push_back({"", e.what()});
    }
  };
  if (gpu::cuda_is_built())
    look([&] {
      for (const gpu::CudaGpu& g : gpu::cuda_gpus()) out.push_back({g.name, g.description});
    });
#ifdef GEMTP_HAVE_METAL
  if (metal_may_be_here()) look([&] { out.push_back({"metal", gpu::metal_gpu()}); });
#endif
  return out;
}

std::string select_device(const std::string& device) {
  std::string name = device, origin = "device";
  if (name.empty())
    if (const char* value = std::getenv("GEMTP_DEVICE")) {
      name = value;
      origin = "device of GEMTP_DEVICE";
    }
  const std::vector<DeviceInfo> here = devices();
  if (name.empty() || name == kAutoDevice) return has_automatic_gpus() ? kAutoDevice : "cpu";
  for (const DeviceInfo& d : here)
    if (name == d.name) return name;
  if (is_known(name) && name.starts_with("cuda")) {
    gpu::check_cuda_gpu(number_of(name));
    return "cuda:" + std::to_string(number_of(name));
  }
#ifdef GEMTP_HAVE_METAL
  if (name == "metal" && metal_may_be_here()) {
    gpu::check_metal_gpu();
    return name;
  }
#endif
  if (is_known(name))
    throw Error(ErrorKind::kArgument, format("the %s %s is not here; there is: %s", origin.c_str(),
                                             quoted(name).c_str(), names_of(here).c_str()));
  throw Error(ErrorKind::kArgument,
              format("the %s %s is unknown; it must be auto, cpu, cuda, cuda:N, metal or emulated",
                     origin.c_str(), quoted(name).c_str()));
}

std::vector<std::string> automatic_gpus(std::vector<std::string>& problems) {
  std::vector<std::string> out;
  if (emulated_is_automatic()) out.push_back("emulated");
  const auto look = [&](const auto& find) {
    try {
      find();
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kArgument) problems.push_back(e.what());
    }
  };
#ifdef GEMTP_HAVE_METAL
  if (metal_may_be_here())
    look([&] {
      gpu::check_metal_gpu();
      out.push_back("metal");
    });
#endif
  if (gpu::cuda_is_built())
    look([&] {
      for (const gpu::CudaGpu& g : gpu::cuda_gpus()) out.push_back(g.name);
    });
  return out;
}

std::unique_ptr<Backend> make_backend(const std::string& name, int threads,
                                      const std::string& isa) {
  std::unique_ptr<Backend> cpu = make_cpu_backend(threads, isa);
#ifdef GEMTP_HAVE_EMULATED_GPU
  if (name == "emulated") return make_gpu_backend(gpu::make_emulated_device(), std::move(cpu));
#endif
#ifdef GEMTP_HAVE_METAL
  if (name == "metal") return make_gpu_backend(gpu::make_metal_device(), std::move(cpu));
#endif
  if (name != "cpu")
    return make_gpu_backend(gpu::make_cuda_device(number_of(name)), std::move(cpu));
  return cpu;
}

}  // namespace gemtp
