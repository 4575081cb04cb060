// All kernels. GPU_KERNEL, as a target defines it, makes each one that is listed.
#include "backend/gpu/kernels/attention.h"
#include "backend/gpu/kernels/choices.h"

namespace gemtp {
namespace gpu {
#include "backend/gpu/kernels/list.h"
}  // namespace gpu
}  // namespace gemtp
