#include "backend/gpu/metal/gpu.h"
// The words come first.
#include "backend/gpu/kernels/all.h"
