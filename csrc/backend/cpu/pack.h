// Repacking of weights from the file's row order into the 16-rows-interleaved tiles of kernels.h.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/cpu_memory.h"
#include "backend/cpu/kernels.h"

namespace gemtp {

/// Writes a tile of the matrix whose rows these are, of `cols` elements each, to `dst`
/// (tile_bytes() bytes, 64-byte aligned). Null rows, which a last tile may have, are zeros. Returns
/// the number of non-finite weights (floats) or blocks with a non-finite scale seen.
int64_t pack_tile(DType type, int64_t cols, const uint8_t* const (&rows)[GEMTP_TILE], uint8_t* dst);

/// dst[i] = element begin + i of row `row`, for i in [0, n), as the type's definition has it; NaN
/// where a scale is not finite. `buffer` takes what is read from a file.
void dequantize(const WeightSource& source, int64_t row, int64_t begin, int64_t n,
                Scratch<uint8_t>& buffer, float* dst);

}  // namespace gemtp
