// The version of this build and the compiler that made it.
#pragma once

#include <string>

namespace gemtp {

/// "0.2.0"
const char* version();
/// The compiler, e.g. "GCC 12.2.0".
const char* compiler();
/// Tells this build from every other: the version, and size and time of the file that holds this
/// code. "" if the system does not say.
std::string build_identity();

}  // namespace gemtp
