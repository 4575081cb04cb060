// Repacking of weights from the file's row order into the 16-rows-interleaved tiles of kernels.h.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace gemtp {

/// Writes tile `tile` of the matrix made of the given rows of `source` to `dst` (tile_bytes()
/// bytes, 64-byte aligned). `rows` lists source rows in output order, or is null for all in order.
/// Returns the number of non-finite weights (floats) or blocks with a non-finite scale seen.
int64_t pack_tile(const WeightSource& source, const int32_t* rows, int64_t n_rows, int64_t tile,
                  uint8_t* dst);

/// dst[i] = element begin + i of row `row`, for i in [0, n), as the type's definition has it; NaN
/// where a scale is not finite.
void dequantize(const WeightSource& source, int64_t row, int64_t begin, int64_t n, float* dst);

}  // namespace gemtp
