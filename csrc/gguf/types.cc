#include "gguf/types.h"

#include <iterator>

namespace gemtp {
namespace {

// Indexed by the number in the file. Numbers without a name (4, 5) were assigned before GGUF
// existed and appear in no file; 31-33 and 36-38 were interleaved layouts that have since been
// withdrawn.
constexpr DTypeInfo kTypes[] = {
    {"F32", 1, 4},          {"F16", 1, 2},          {"Q4_0", 32, 18},       {"Q4_1", 32, 20},
    {nullptr, 0, 0},        {nullptr, 0, 0},        {"Q5_0", 32, 22},       {"Q5_1", 32, 24},
    {"Q8_0", 32, 34},       {"Q8_1", 32, 36},       {"Q2_K", 256, 84},      {"Q3_K", 256, 110},
    {"Q4_K", 256, 144},     {"Q5_K", 256, 176},     {"Q6_K", 256, 210},     {"Q8_K", 256, 292},
    {"IQ2_XXS", 256, 66},   {"IQ2_XS", 256, 74},    {"IQ3_XXS", 256, 98},   {"IQ1_S", 256, 50},
    {"IQ4_NL", 32, 18},     {"IQ3_S", 256, 110},    {"IQ2_S", 256, 82},     {"IQ4_XS", 256, 136},
    {"I8", 1, 1},           {"I16", 1, 2},          {"I32", 1, 4},          {"I64", 1, 8},
    {"F64", 1, 8},          {"IQ1_M", 256, 56},     {"BF16", 1, 2},         {"Q4_0_4_4", 32, 18},
    {"Q4_0_4_8", 32, 18},   {"Q4_0_8_8", 32, 18},   {"TQ1_0", 256, 54},     {"TQ2_0", 256, 66},
    {"IQ4_NL_4_4", 32, 18}, {"IQ4_NL_4_8", 32, 18}, {"IQ4_NL_8_8", 32, 18}, {"MXFP4", 32, 17},
    {"NVFP4", 64, 36},      {"Q1_0", 128, 18},
};

}  // namespace

const DTypeInfo* dtype_info(uint32_t type) {
  if (type >= std::size(kTypes) || kTypes[type].name == nullptr) return nullptr;
  return &kTypes[type];
}

bool dtype_supported(uint32_t type) {
  switch (static_cast<DType>(type)) {
    case DType::kF32:
    case DType::kF16:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
    case DType::kIQ2_XXS:
    case DType::kIQ2_XS:
    case DType::kIQ3_XXS:
    case DType::kIQ1_S:
    case DType::kIQ4_NL:
    case DType::kIQ3_S:
    case DType::kIQ2_S:
    case DType::kIQ4_XS:
    case DType::kIQ1_M:
    case DType::kBF16:
    case DType::kMXFP4:
    case DType::kNVFP4:
      return true;
  }
  return false;
}

}  // namespace gemtp
