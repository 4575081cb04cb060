#include "backend/cpu/packed_form.h"

#include "base/error.h"
#include "gguf/blocks.h"

namespace gemtp {
namespace {

// Values of the rare types as decode_block() returns them; unused entries repeat one.
constexpr int8_t kThreeBits[16] = {-4, -3, -2, -1, 0, 1, 2, 3};
constexpr int8_t kTwoBits[16] = {0, 1, 2, 3};
constexpr int8_t kIq3Xxs[16] = {-62, -52, -44, -36, -28, -20, -12, -4,
                                4,   12,  20,  28,  36,  44,  52,  62};
constexpr int8_t kIq3S[16] = {-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15};
constexpr int8_t kIq2[16] = {-43, -25, -8, 8, 25, 43};
constexpr int8_t kIq1[16] = {-9, -7, -1, 1, 7, 9};

constexpr PackedForm kF32{GEMTP_F32, "32-bit floats", 128, 0, nullptr};
constexpr PackedForm kF16{GEMTP_F16, "16-bit floats", 64, 0, nullptr};
constexpr PackedForm kBf16{GEMTP_BF16, "16-bit floats", 64, 0, nullptr};
constexpr PackedForm kQ8_0{GEMTP_Q8_0, "bytes", 32, 16, nullptr};
constexpr PackedForm kQ4_0{GEMTP_Q4_0, "nibbles", 16, 16, nullptr};
constexpr PackedForm kQ4_1{GEMTP_Q4_1, "nibbles", 16, 32, nullptr};
constexpr PackedForm kQ5_0{GEMTP_Q5_0, "5 bits", 20, 16, nullptr};
constexpr PackedForm kQ5_1{GEMTP_Q5_1, "5 bits", 20, 32, nullptr};
constexpr PackedForm kQ4_K{GEMTP_Q4_K, "nibbles", 16, 20, nullptr};
constexpr PackedForm kQ5_K{GEMTP_Q5_K, "5 bits", 20, 20, nullptr};
constexpr PackedForm kQ6_K{GEMTP_Q6_K, "6 bits", 24, 20, nullptr};
constexpr PackedForm kIq4Nl{GEMTP_IQ4_NL, "nibbles", 16, 16, kIq4Values};
constexpr PackedForm kMxfp4{GEMTP_MXFP4, "nibbles", 16, 16, kFloat4Values};
constexpr PackedForm kIq4Xs{GEMTP_IQ4_XS, "nibbles", 16, 10, kIq4Values};

constexpr PackedForm groups(const int8_t* table) { return {GEMTP_T4_G, "nibbles", 16, 20, table}; }
constexpr PackedForm kGroupsOfThreeBits = groups(kThreeBits), kGroupsOfIq3Xxs = groups(kIq3Xxs),
                     kGroupsOfIq3S = groups(kIq3S), kGroupsOfIq2 = groups(kIq2),
                     kGroupsOfIq1 = groups(kIq1);
constexpr PackedForm kGroupsOfTwoBits{GEMTP_T4_GM, "nibbles", 16, 40, kTwoBits};

}  // namespace

const PackedForm& packed_form(DType type) {
  switch (type) {
    case DType::kF32:
      return kF32;
    case DType::kF16:
      return kF16;
    case DType::kBF16:
    case DType::kNVFP4:  // 4 bits of scale times 2 of the number: fits in the 8 of a bfloat16
      return kBf16;
    case DType::kQ8_0:
      return kQ8_0;
    case DType::kQ4_0:
      return kQ4_0;
    case DType::kQ4_1:
      return kQ4_1;
    case DType::kQ5_0:
      return kQ5_0;
    case DType::kQ5_1:
      return kQ5_1;
    case DType::kQ4_K:
      return kQ4_K;
    case DType::kQ5_K:
      return kQ5_K;
    case DType::kQ6_K:
      return kQ6_K;
    case DType::kIQ4_NL:
      return kIq4Nl;
    case DType::kMXFP4:
      return kMxfp4;
    case DType::kIQ4_XS:
      return kIq4Xs;
    case DType::kQ2_K:
      return kGroupsOfTwoBits;
    case DType::kQ3_K:
      return kGroupsOfThreeBits;
    case DType::kIQ3_XXS:
      return kGroupsOfIq3Xxs;
    case DType::kIQ3_S:
      return kGroupsOfIq3S;
    case DType::kIQ2_XXS:
    case DType::kIQ2_XS:
    case DType::kIQ2_S:
      return kGroupsOfIq2;
    case DType::kIQ1_S:
    case DType::kIQ1_M:
      return kGroupsOfIq1;
  }
  GEMTP_ASSERT(!"a matrix of an unknown type");
  return kF32;
}

int64_t tile_bytes(DType type, int64_t cols) {
  const PackedForm& form = packed_form(type);
  // Floats need no whole blocks, and types with blocks of 32 no multiples of 256.
  const int64_t bytes = GEMTP_TILE * (form.block_bytes * cols / 32 + form.scale_bytes * cols / 256);
  return (bytes + 63) / 64 * 64;
}

}  // namespace gemtp
