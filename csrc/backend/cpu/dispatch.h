// Which kernel table runs on this machine.
#pragma once

#include <string>
#include <vector>

#include "backend/cpu/kernels.h"

namespace gemtp {

/// Tables compiled in and runnable here, best first; "scalar" is always last.
std::vector<const gemtp_kernels*> runnable_kernels();

/// The table named `isa`. "" takes the environment variable GEMTP_ISA, and without it the best
/// runnable table. Error{kArgument} for a name that is unknown (lists the known ones) or cannot run
/// on this machine (lists the runnable ones).
const gemtp_kernels& select_kernels(const std::string& isa = "");

}  // namespace gemtp
