// What the kernels of each packed format are called: "matmul_q4_0_1", "embed_q4_0", ...
#pragma once

#include "backend/cpu/kernels.h"

namespace gemtp::gpu {

inline constexpr const char* kFormatNames[GEMTP_FORMATS] = {
    "f32",  "f16",  "bf16", "q8_0",   "q4_0",  "q4_1",   "q5_0", "q5_1",
    "q4_k", "q5_k", "q6_k", "iq4_nl", "mxfp4", "iq4_xs", "t4_g", "t4_gm"};

}  // namespace gemtp::gpu
