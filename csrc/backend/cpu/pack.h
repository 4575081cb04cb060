// Repacking of weights from the file's row order into the 16-rows-interleaved tiles of kernels.h.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/cpu_memory.h"
#include "backend/cpu/kernels.h"

namespace gemtp {

/// Packs these rows, of `cols` elements each, into a tile at `dst` (tile_bytes() bytes, 64-byte
/// aligned). Null rows, which the last tile may have, become zeros. Returns the number of weights
/// (floats) or blocks' scales that are not finite.
int64_t pack_tile(DType type, int64_t cols, const uint8_t* const (&rows)[GEMTP_TILE], uint8_t* dst);

/// Sets dst[i] to element begin + i of row `row`, for i in [0, n), as the type defines it; to NaN
/// if a scale is not finite. `buffer` is used for reading the file.
void dequantize(const WeightSource& source, int64_t row, int64_t begin, int64_t n,
                Scratch<uint8_t>& buffer, float* dst);

}  // namespace gemtp
