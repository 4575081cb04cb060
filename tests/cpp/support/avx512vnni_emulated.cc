// The avx512vnni table on machines without AVX-512.
#include "avx512_emulation.h"

#define GEMTP_TABLE gemtp_kernels_avx512vnni_emulated
#define GEMTP_TABLE_NAME "avx512vnni (emulated)"
#include "backend/cpu/avx512vnni.cc"
