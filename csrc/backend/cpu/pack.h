// Repacking of weights from the file's row order into the 16-rows-interleaved tiles of kernels.h.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace gemtp {

/// Bytes of one tile of 16 rows, a multiple of 64.
int64_t tile_bytes(DType type, int64_t cols);

/// Writes tile `tile` of the matrix made of the given rows of `source` to `dst` (tile_bytes()
/// bytes, 64-byte aligned). `rows` lists source rows in output order, or is null for all in order.
/// Returns the number of non-finite weights (f32, f16, bf16) or scales (q8_0, q4_0) seen.
int64_t pack_tile(const WeightSource& source, const int32_t* rows, int64_t n_rows, int64_t tile,
                  uint8_t* dst);

/// dst[i] = element begin + i of row `row`, for i in [0, n). Exact for every type.
void dequantize(const WeightSource& source, int64_t row, int64_t begin, int64_t n, float* dst);

}  // namespace gemtp
