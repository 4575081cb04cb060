// Weights of any checkpoint, and importances of any file, as blocks of every type that is written.
#include <algorithm>
#include <cmath>

#include "fuzz.h"
#include "gguf/blocks.h"
#include "quantize/encode.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

constexpr int kValues = 256;

// Values that change seldom, so that blocks of equal ones occur.
std::vector<float> values(Data& data) {
  std::vector<float> out(kValues);
  float value = 0;
  for (float& v : out) {
    if (data.remaining_bytes() > 0 && data.ConsumeBool()) value = any_float(data);
    v = value;
  }
  return out;
}

// The largest value that a 16-bit scale with the fewest levels spans.
constexpr float kRange = 60000;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Data data(bytes, size);
  const auto type = data.PickValueInArray<DType>(
      {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kMXFP4,
       DType::kIQ4_NL, DType::kIQ4_XS, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K,
       DType::kQ6_K});
  FUZZ_CHECK(encodable(type));
  const bool weighted = data.ConsumeBool();
  std::vector<float> x = values(data), importance = values(data);
  for (float& v : x) v = std::isfinite(v) ? std::clamp(v, -kRange, kRange) : 0;
  for (float& v : importance) v = std::isfinite(v) ? std::fabs(v) : 1;

  const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
  const int blocks = kValues / info.block;
  std::vector<uint8_t> out(static_cast<size_t>(blocks * info.bytes)), again(out.size());
  const float* weights = weighted ? importance.data() : nullptr;
  const int64_t unusable = encode(type, x.data(), kValues, weights, out.data());
  FUZZ_CHECK(encode(type, x.data(), kValues, weights, again.data()) == unusable && again == out);
  FUZZ_CHECK(unusable >= 0 && unusable <= blocks);
  int64_t refused_blocks = 0;
  for (int b = 0; b < blocks; ++b) {
    DecodedBlock block;
    if (!decode_block(type, out.data() + b * info.bytes, &block)) {
      ++refused_blocks;
      continue;
    }
    float y[kValues];
    dequantize_block(block, info.block, y);
    for (int i = 0; i < info.block; ++i) FUZZ_CHECK(std::isfinite(y[i]));
  }
  FUZZ_CHECK(refused_blocks == unusable);  // what a reader would refuse is never written unnoticed
  return 0;
}
