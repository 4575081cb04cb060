// Selects the packed format of kernels.h that represents a file's type exactly.
#pragma once

#include <cstdint>

#include "backend/cpu/kernels.h"
#include "gguf/types.h"

namespace gemtp {

struct PackedForm {
  gemtp_format format;
  const char* name;     // for a person
  int64_t block_bytes;  // of 32 elements of one row, without scales
  int64_t scale_bytes;  // of 256 elements of one row
  const int8_t* table;  // of 16 values, or null
};

/// Common types have a format of their own. Rare ones have at most 16 different values within a
/// scale, so they become nibbles of a table format, with the scales of their groups of 16 as
/// integers. NVFP4, whose groups differ too much for that, becomes floats.
const PackedForm& packed_form(DType type);

inline bool quantized(DType type) { return packed_form(type).format >= GEMTP_Q8_0; }

/// Bytes of one tile of 16 rows, a multiple of 64.
int64_t tile_bytes(DType type, int64_t cols);

}  // namespace gemtp
