#include "base/build_info.h"

namespace gemtp {

const char* version() { return GEMTP_VERSION; }

const char* compiler() {
#define GEMTP_QUOTE(x) #x
#define GEMTP_EXPAND(x) GEMTP_QUOTE(x)
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#elif defined(_MSC_FULL_VER)
  return "MSVC " GEMTP_EXPAND(_MSC_FULL_VER);
#else
  return "an unknown compiler";
#endif
#undef GEMTP_EXPAND
#undef GEMTP_QUOTE
}

}  // namespace gemtp
