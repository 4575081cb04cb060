// Selects the kernel table for this machine.
#pragma once

#include <string>
#include <vector>

#include "backend/cpu/kernels.h"

namespace gemtp {

/// Returns the compiled tables that run here, best first; "scalar" is always last.
std::vector<const gemtp_kernels*> runnable_kernels();

/// Returns the table named `isa`; for "" the one named by the environment variable GEMTP_ISA or, if
/// that is not set, the best. Throws Error{kArgument} for an unknown name (and lists the known
/// ones) and for one that cannot run on this machine (and lists those that can).
const gemtp_kernels& select_kernels(const std::string& isa = "");

}  // namespace gemtp
