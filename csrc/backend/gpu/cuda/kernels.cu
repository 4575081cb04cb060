#include "backend/gpu/cuda/gpu.h"
// The words come first.
#include "backend/gpu/kernels/all.h"
