// Apple's GPUs, by Metal.
#pragma once

#include <memory>
#include <string>

#include "backend/gpu/gpu_device.h"

namespace gemtp::gpu {

/// Whether Metal may be here: on Apple's systems, and where something stands in for it.
bool metal_may_be_here();

/// The GPU that make_metal_device() opens, e.g. "Apple M2, 11.5 GB". Loads Metal; throws as that.
std::string metal_gpu();

/// Throws Error{kArgument} if Metal or a GPU are not here, and Error{kDevice} for a system or GPU
/// that is too old. Opens nothing.
void check_metal_gpu();

/// Opens the first GPU of Apple's own. Throws as check_metal_gpu(). The device may be used by
/// several threads at a time, but launches, send(), fetch() and recordings by one.
std::unique_ptr<GpuDevice> make_metal_device();

}  // namespace gemtp::gpu
