// Encoding of float32 weights as the block types of GGUF. The same values give the same bytes on
// every machine: the arithmetic is in float, in a fixed order, without the C library.
//
// Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and MXFP4 take their scale from a block's largest value and are bit
// for bit equal to those of gguf-py (direct.h). The other types search for the scales with the
// least squared error (symmetric.h, affine.h); so do Q4_0 to Q5_1 if importance is given.
#pragma once

#include <cstdint>

#include "gguf/types.h"

namespace gemtp {

/// Whether encode() supports a type.
bool encodable(DType type);

/// Encodes x[0 .. n), whole blocks of weight rows, to `out`. Values must be finite and within the
/// type's range.
/// importance: [n], how much the error of each value counts, finite and not negative; null weights
/// all equally. Q8_0 and MXFP4, which have little choice, ignore it.
/// Returns the number of blocks whose scale is not finite, which happens for values beyond the
/// type's range. Such blocks are unusable.
int64_t encode(DType type, const float* x, int64_t n, const float* importance, uint8_t* out);

}  // namespace gemtp
