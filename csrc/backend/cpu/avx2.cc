// AVX2, FMA and F16C.
#define GEMTP_TABLE gemtp_kernels_avx2
#define GEMTP_TABLE_NAME "avx2"
#include "backend/cpu/avx2_impl.h"
