// Encoding of float32 weights as the block types of GGUF. The same values give the same bytes on
// every machine: float arithmetic in a fixed order, no C library.
//
// Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and MXFP4 take their scale from a block's largest value and are
// equal to gguf-py's, bit for bit (direct.h). The others search for the scales with the least
// squared error (symmetric.h, affine.h); so do Q4_0 to Q5_1 when the columns have weights.
#pragma once

#include <cstdint>

#include "gguf/types.h"

namespace gemtp {

/// Whether encode() writes a type.
bool encodable(DType type);

/// Encodes x[0 .. n), whole blocks of rows of weights, to `out`. Values are finite and within the
/// type's range.
/// importance: [n] how much the error of each value counts, finite and not negative, or null: all
/// the same. Q8_0 and MXFP4, which have little to choose, ignore it.
/// Returns how many blocks came out with a scale that is not finite, as those of values beyond the
/// type's range do: they cannot be used.
int64_t encode(DType type, const float* x, int64_t n, const float* importance, uint8_t* out);

}  // namespace gemtp
