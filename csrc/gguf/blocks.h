// Decoding of quantized blocks: every block type of GGUF as integers and their scales.
#pragma once

#include <cstdint>

#include "gguf/types.h"

namespace gemtp {

/// The contents of a block of up to 256 elements; 16 consecutive elements form a group. Element i
/// is
///   (d * scale[i / 16]) * q[i] - dmin * min[i / 16]
/// in float arithmetic, with one rounding (the products are exact). It is the float that the
/// format's reference implementation computes, including the sign of a zero.
struct DecodedBlock {
  int8_t q[256];
  float d, dmin;      // dmin is 0 in types without a minimum
  int32_t scale[16];  // 1 in types with one scale per block; more than 8 bits in NVFP4 alone
  int8_t min[16];     // 1 in Q4_1 and Q5_1 (dmin = -m), 0 in types without a minimum
};

/// The values of the nibbles of IQ4_NL and IQ4_XS, and those of MXFP4 and NVFP4: doubled 4-bit
/// floats with two bits of exponent and one of mantissa.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr int8_t kFloat4Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                             0, -1, -2, -3, -4, -6, -8, -12};

/// Decodes one block of a quantized type: dtype_info(type)->block elements; the rest of *out is
/// undefined. Returns false if a scale is NaN or infinite.
bool decode_block(DType type, const uint8_t* block, DecodedBlock* out);

/// Computes the first n elements of a decoded block.
void dequantize_block(const DecodedBlock& block, int n, float* out);

}  // namespace gemtp
