/* The header alone, as strict compilers of C and C++ read it: CMakeLists.txt compiles this as both.
 */
#include "gemtp.h"

int gemtp_header_test(void);
int gemtp_header_test(void) { return GEMTP_ABI_VERSION; }
