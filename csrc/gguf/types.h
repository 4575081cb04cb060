// Tensor element types of GGUF and the geometry of their blocks.
#pragma once

#include <cstdint>

namespace gemtp {

/// The numbers are those of the file format.
enum class DType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kIQ1_M = 29,
  kBF16 = 30,
  kMXFP4 = 39,
  kNVFP4 = 40,
};

constexpr int kBlockSize = 32;  // elements in one Q4_0 or Q8_0 block

struct DTypeInfo {
  const char* name;
  int block;  // elements in a block along ne[0]
  int bytes;  // bytes of a block
};

/// Describes every type that GGUF has a number for, including those this build cannot compute with;
/// nullptr for a number that no version of the format has assigned.
const DTypeInfo* dtype_info(uint32_t type);

/// True for the types in DType, which this build can compute with.
bool dtype_supported(uint32_t type);

inline const char* dtype_name(DType t) { return dtype_info(static_cast<uint32_t>(t))->name; }

// Q8_0: d, then 32 signed quants: x = d * q.
struct BlockQ8_0 {
  uint16_t d;  // f16
  int8_t q[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// Q4_0: d, then 16 bytes; byte j holds element j in its low nibble and element j+16 in its high
// nibble, each stored with an offset of 8: x = d * (nibble - 8).
struct BlockQ4_0 {
  uint16_t d;  // f16
  uint8_t q[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

}  // namespace gemtp
