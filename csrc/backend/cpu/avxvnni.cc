// AVX2, FMA, F16C and AVX-VNNI.
#define GEMTP_AVX_VNNI
#ifndef GEMTP_TABLE
#define GEMTP_TABLE gemtp_kernels_avxvnni
#define GEMTP_TABLE_NAME "avxvnni"
#endif
#include "backend/cpu/avx2_impl.h"
