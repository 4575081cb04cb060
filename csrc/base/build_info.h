// The version of this build and the compiler that made it.
#pragma once

namespace gemtp {

/// "0.2.0"
const char* version();
/// The compiler, e.g. "GCC 12.2.0".
const char* compiler();

}  // namespace gemtp
