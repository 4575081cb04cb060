#include "backend/gpu/emulated/kernels.h"

#include <algorithm>
#include <vector>

#include "backend/gpu/emulated/gpu.h"

namespace gemtp::gpu {
namespace {

std::vector<const Kernel*>& list() {
  static std::vector<const Kernel*> all;
  return all;
}

// Puts a kernel into the list.
template <class Body>
struct Entry {
  Kernel kernel;
  explicit Entry(const char* name)
      : kernel{name, Body::kThreads, sizeof(typename Body::Arguments),
               sizeof(typename Body::Memory), run} {
    list().push_back(&kernel);
  }
  static void run(const void* arguments, void* memory, const Place& place) {
    Body::run(*static_cast<const typename Body::Arguments*>(arguments),
              *static_cast<typename Body::Memory*>(memory), place);
  }
};

}  // namespace
}  // namespace gemtp::gpu

#define GPU_KERNEL(name, ...) static const Entry<__VA_ARGS__> entry_##name{#name};
#include "backend/gpu/kernels/all.h"

namespace gemtp::gpu {

const Kernel* find_kernel(std::string_view name) {
  const auto at = std::find_if(list().begin(), list().end(),
                               [name](const Kernel* k) { return name == k->name; });
  return at == list().end() ? nullptr : *at;
}

int64_t quant_bytes() { return sizeof(Quant); }

}  // namespace gemtp::gpu
