// The avxvnni table on machines without AVX-VNNI.
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace {

// Four products of unsigned and signed bytes added to each int32, without saturation.
inline __m256i emulate_dpbusd(__m256i acc, __m256i u, __m256i x) {
  int32_t sum[8];
  uint8_t a[32];
  int8_t b[32];
  memcpy(sum, &acc, 32);
  memcpy(a, &u, 32);
  memcpy(b, &x, 32);
  for (int i = 0; i < 32; ++i) sum[i / 4] += a[i] * b[i];
  memcpy(&acc, sum, 32);
  return acc;
}

}  // namespace

#define _mm256_dpbusd_avx_epi32(acc, u, x) emulate_dpbusd(acc, u, x)
#define GEMTP_TABLE gemtp_kernels_avxvnni_emulated
#define GEMTP_TABLE_NAME "avxvnni (emulated)"
#include "backend/cpu/avxvnni.cc"
