// The avx512 table on machines without AVX-512.
#include "avx512_emulation.h"

#define GEMTP_TABLE gemtp_kernels_avx512_emulated
#define GEMTP_TABLE_NAME "avx512 (emulated)"
#include "backend/cpu/avx512.cc"
