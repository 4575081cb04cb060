// The kernels in the Metal Shading Language, in this library, and what the host must know of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace gemtp::gpu::metal {

/// A kernel as kernels/list.h has it.
struct KernelEntry {
  const char* name;
  int threads;  // of a block
  int argument_bytes;
};

/// In the order of kernels/list.h.
std::span<const KernelEntry> kernel_entries();

/// Kernels are compiled by groups: those of a format, and "common" ones. Returns that of a kernel.
std::string module_of(std::string_view kernel);

/// kernels.metal with what it includes, as cmake/metal_source.cmake writes it.
extern const char* const kKernelSource;

/// The source with the kernels of one group.
std::string source_of(const std::string& module);

}  // namespace gemtp::gpu::metal
