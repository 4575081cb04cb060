// AVX-512 F, BW, DQ, VL and VNNI.
#define GEMTP_AVX512_VNNI
#ifndef GEMTP_TABLE
#define GEMTP_TABLE gemtp_kernels_avx512vnni
#define GEMTP_TABLE_NAME "avx512vnni"
#endif
#include "backend/cpu/avx512_impl.h"
