// The kernels as Metal has compiled them for a device.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/gpu/metal/runtime.h"

namespace gemtp::gpu::metal {

struct Pipeline {
  Owned state;  // none until it is first asked for
  int threads;  // of a block
  int64_t argument_bytes;
};

class Pipelines {
 public:
  /// where: the device's name, for errors.
  Pipelines(Id device, std::string where);

  /// By its name in kernels/list.h. The kernels of a format are compiled when the first of them is
  /// asked for. Throws Error{kDevice} for kernels that the device does not take.
  const Pipeline& of(const std::string& kernel);

  /// Gives up all objects without releasing them.
  void abandon();

 private:
  Owned compile(const std::string& kernel, int threads);
  Id library_of(const std::string& module);
  [[noreturn]] void refuse(const std::string& what, const std::string& why) const;

  const Runtime& r_ = runtime();
  const Id device_;
  const std::string where_;
  std::unordered_map<std::string, Pipeline> kernels_;
  std::map<std::string, Owned> libraries_;
};

}  // namespace gemtp::gpu::metal
