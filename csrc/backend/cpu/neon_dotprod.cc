// NEON with the dot products of ARMv8.2 (SDOT).
#include "backend/cpu/neon_dots.h"
#include "backend/cpu/vector_attention.h"
#include "backend/cpu/vector_matmul.h"

namespace {

template <int kOffset>
struct Nibbles {
  static_assert(kOffset == 8);
  static constexpr int kBlockBytes = 256, kUnpackedBytes = 512;
  static constexpr int kDirectRows = 4, kGroup = 4;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& block, const ActivationBlock& x, F32x16* dot) {
    const uint8_t* w = block.quants;
    const int8_t* q = x.q;
    const int32_t* bias = x.bias;
    dots_of_nibbles<kRows>(w, q, bias, dot);
  }

  // One nibble a byte, [8 groups of four k][16 output rows][4].
  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& block, uint8_t* u) {
    const uint8_t* w = block.quants;
    GEMTP_UNROLL
    for (int i = 0; i < 256; i += 16) {
      const uint8x16_t both = vld1q_u8(w + i);
      vst1q_u8(u + i, vandq_u8(both, vdupq_n_u8(15)));
      vst1q_u8(u + 256 + i, vshrq_n_u8(both, 4));
    }
    return u;
  }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* u, const PackedBlock&,
                                         const ActivationBlock& x, F32x16* dot) {
    const int8_t* q = x.q;
    const int32_t* bias = x.bias;
    int32x4_t start[kRows];
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) start[i] = nibble_start(bias[i]);
    dots_of_bytes<kRows>(u, q, start, dot);
  }
};

struct Bytes {
  static constexpr int kBlockBytes = 512, kUnpackedBytes = 64;  // used as it is
  static constexpr int kDirectRows = 4, kGroup = 4;

  template <int kRows>
  static GEMTP_INLINE void dots(const PackedBlock& block, const ActivationBlock& x, F32x16* dot) {
    const uint8_t* w = block.quants;
    const int8_t* q = x.q;
    dots_of_int8<kRows>(w, q, dot);
  }
  static GEMTP_INLINE const uint8_t* unpack(const PackedBlock& w, uint8_t*) { return w.quants; }
  template <int kRows>
  static GEMTP_INLINE void unpacked_dots(const uint8_t* w, const PackedBlock&,
                                         const ActivationBlock& x, F32x16* dot) {
    const int8_t* q = x.q;
    dots_of_int8<kRows>(w, q, dot);
  }
};

}  // namespace

#define GEMTP_TABLE gemtp_kernels_neon_dotprod
#define GEMTP_TABLE_NAME "neon_dotprod"
#define GEMTP_FIRST_QUANTS
#include "backend/cpu/vector_table.h"
