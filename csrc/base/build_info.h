// What this build is.
#pragma once

namespace gemtp {

/// "0.2.0"
const char* version();
/// What compiled it, e.g. "GCC 12.2.0".
const char* compiler();

}  // namespace gemtp
