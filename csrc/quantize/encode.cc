#include "quantize/encode.h"

#include "base/error.h"
#include "gguf/blocks.h"
#include "quantize/affine.h"
#include "quantize/direct.h"
#include "quantize/search.h"
#include "quantize/symmetric.h"

namespace gemtp {
namespace {

constexpr int kMaxSearched = 256;

using Direct = void (*)(const float* x, uint8_t* out);
using Search = void (*)(const float* x, const float* w, uint8_t* out);

struct Encoder {
  Direct direct = nullptr;  // used without importance; null: by search
  Search search = nullptr;  // null: importance is ignored
};

Encoder encoder(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return {encode_q8_0, nullptr};
    case DType::kMXFP4:
      return {encode_mxfp4, nullptr};
    case DType::kQ4_0:
      return {encode_q4_0, search_q4_0};
    case DType::kQ4_1:
      return {encode_q4_1, search_q4_1};
    case DType::kQ5_0:
      return {encode_q5_0, search_q5_0};
    case DType::kQ5_1:
      return {encode_q5_1, search_q5_1};
    case DType::kIQ4_NL:
      return {nullptr, search_iq4_nl};
    case DType::kIQ4_XS:
      return {nullptr, search_iq4_xs};
    case DType::kQ2_K:
      return {nullptr, search_q2_k};
    case DType::kQ3_K:
      return {nullptr, search_q3_k};
    case DType::kQ4_K:
      return {nullptr, search_q4_k};
    case DType::kQ5_K:
      return {nullptr, search_q5_k};
    case DType::kQ6_K:
      return {nullptr, search_q6_k};
    default:
      return {};
  }
}

// How many values are searched at once: a block of 256, or four of 32.
int searched(const DTypeInfo& info) { return info.block == 32 ? 4 * 32 : kMaxSearched; }

// Encodes whole blocks, at most searched() values. Zeros stand for missing blocks.
void encode_by_search(Search search, const DTypeInfo& info, const float* x, int64_t n,
                      const float* importance, uint8_t* out) {
  float values[kMaxSearched] = {}, weights[kMaxSearched];
  uint8_t bytes[kMaxSearched];  // enough, because all types take less than a byte for a value
  std::copy(x, x + n, values);
  for (int at = 0; at < searched(info); at += static_cast<int>(info.block))
    error_weights(importance && at < n ? importance + at : nullptr, info.block, weights + at);
  search(values, weights, bytes);
  std::copy(bytes, bytes + n / info.block * info.bytes, out);
}

}  // namespace

bool encodable(DType type) {
  const Encoder e = encoder(type);
  return e.direct || e.search;
}

int64_t encode(DType type, const float* x, int64_t n, const float* importance, uint8_t* out) {
  const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
  GEMTP_ASSERT(encodable(type) && n % info.block == 0);
  const Encoder e = encoder(type);
  const bool direct = e.direct && !(importance && e.search);
  const int64_t step = direct ? info.block : searched(info);
  for (int64_t at = 0; at < n; at += step) {
    uint8_t* bytes = out + at / info.block * info.bytes;
    if (direct)
      e.direct(x + at, bytes);
    else
      encode_by_search(e.search, info, x + at, std::min(n - at, step),
                       importance ? importance + at : nullptr, bytes);
  }
  int64_t bad = 0;
  DecodedBlock decoded;
  for (int64_t at = 0; at < n; at += info.block, out += info.bytes)
    bad += !decode_block(type, out, &decoded);
  return bad;
}

}  // namespace gemtp
