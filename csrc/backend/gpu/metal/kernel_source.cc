#include "backend/gpu/metal/kernel_source.h"

#include "backend/gpu/format_names.h"

// Numbers of threads and bytes are in the kernels' own text. It is read as C++ for them, with the
// words of the emulation, and none of its functions is compiled.
#define GEMTP_GPU_FLOAT_QUANTS
#include "backend/gpu/emulated/gpu.h"
#include "backend/gpu/kernels/attention.h"
#include "backend/gpu/kernels/choices.h"

namespace gemtp::gpu::metal {
namespace {

constexpr size_t kMostShared = 32 << 10;  // bytes that the threads of a block can share

template <class Body>
constexpr KernelEntry entry(const char* name) {
  static_assert(sizeof(typename Body::Memory) <= kMostShared);
  return {name, Body::kThreads, static_cast<int>(sizeof(typename Body::Arguments))};
}

constexpr KernelEntry kEntries[] = {
#define GPU_KERNEL(name, ...) entry<__VA_ARGS__>(#name),
#include "backend/gpu/kernels/list.h"
};

// Of a line of the list; "" for any other line.
std::string module_of_line(std::string_view line) {
  const size_t end = line.find_first_of("(,"), name_end = line.find(',');
  const std::string_view word = line.substr(0, end);
  if (word == "GPU_KERNEL") return "common";
  if (word != "GPU_QUANTIZED" && word != "GPU_FLOATS") return "";
  return std::string(line.substr(end + 1, name_end - end - 1));
}

}  // namespace

std::span<const KernelEntry> kernel_entries() { return kEntries; }

std::string module_of(std::string_view kernel) {
  for (const char* format : kFormatNames)
    for (const char* use : {"matmul_", "embed_"}) {
      const std::string name = use + std::string(format);
      if (kernel == name || kernel.starts_with(name + "_")) return format;
    }
  return "common";
}

std::string source_of(const std::string& module) {
  std::string out;
  for (std::string_view rest = kKernelSource; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n') + 1);
    const std::string of = module_of_line(line);
    if (of.empty() || of == module) out += line;
    rest.remove_prefix(line.size());
  }
  return out;
}

}  // namespace gemtp::gpu::metal
