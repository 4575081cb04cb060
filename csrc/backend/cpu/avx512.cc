// AVX-512 F, BW, DQ, VL, without VNNI.
#ifndef GEMTP_TABLE
#define GEMTP_TABLE gemtp_kernels_avx512
#define GEMTP_TABLE_NAME "avx512"
#endif
#include "backend/cpu/avx512_impl.h"
