// The kernels, compiled for the emulated device.
#pragma once

#include <string_view>
#include <vector>

#include "backend/gpu/emulated/device.h"

namespace gemtp::gpu {

/// By its name in kernels/all.h; null if there is none.
const Kernel* find_kernel(std::string_view name);
const std::vector<const Kernel*>& all_kernels();

/// Bytes of a quant in QuantizedRows.
int64_t quant_bytes();

}  // namespace gemtp::gpu
