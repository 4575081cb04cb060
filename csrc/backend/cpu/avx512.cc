// AVX-512 F, BW, DQ, VL, without VNNI.
#ifndef GEMTP_AVX512_TABLE
#define GEMTP_AVX512_TABLE gemtp_kernels_avx512
#define GEMTP_AVX512_NAME "avx512"
#endif
#include "backend/cpu/avx512_impl.h"
