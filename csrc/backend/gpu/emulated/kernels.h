// The kernels, compiled for the emulated device.
#pragma once

#include <string_view>

#include "backend/gpu/emulated/device.h"

namespace gemtp::gpu {

/// By its name in kernels/list.h; null if there is none.
const Kernel* find_kernel(std::string_view name);

/// Bytes of a quant in QuantizedRows.
int64_t quant_bytes();

}  // namespace gemtp::gpu
