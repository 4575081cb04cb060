#include "backend/cpu/pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/kernels.h"
#include "base/float16.h"

namespace gemtp {
namespace {

constexpr int64_t kTile = GEMTP_TILE;

float element_f32(const uint8_t* p) {
  float v;
  std::memcpy(&v, p, 4);
  return v;
}
uint16_t load_u16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}

bool finite_f16(uint16_t h) { return (h & 0x7c00u) != 0x7c00u; }
bool finite_bf16(uint16_t h) { return (h & 0x7f80u) != 0x7f80u; }

template <class T>
int64_t pack_float_row(const uint8_t* src, int64_t cols, int64_t lane, T* dst, bool (*finite)(T)) {
  int64_t bad = 0;
  for (int64_t k = 0; k < cols; ++k) {
    T v;
    std::memcpy(&v, src + k * static_cast<int64_t>(sizeof(T)), sizeof(T));
    bad += !finite(v);
    dst[k * kTile + lane] = v;
  }
  return bad;
}

// Quants go to `dst` group by group (4 bytes of the row at a time), the scale behind all quants.
int64_t pack_quantized_row(const uint8_t* src, int64_t blocks, int64_t block_bytes, int64_t lane,
                           uint8_t* dst) {
  const int64_t quant_bytes = block_bytes - 2;
  uint8_t* scales = dst + blocks * quant_bytes * kTile;
  int64_t bad = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* block = src + b * block_bytes;
    bad += !finite_f16(load_u16(block));
    std::memcpy(scales + (b * kTile + lane) * 2, block, 2);
    uint8_t* quants = dst + b * quant_bytes * kTile;
    for (int64_t g = 0; g < quant_bytes / 4; ++g)
      std::memcpy(quants + (g * kTile + lane) * 4, block + 2 + g * 4, 4);
  }
  return bad;
}

}  // namespace

int64_t tile_bytes(DType type, int64_t cols) {
  const DTypeInfo* info = dtype_info(static_cast<uint32_t>(type));
  const int64_t raw = cols / info->block * info->bytes * kTile;
  return (raw + 63) / 64 * 64;
}

int64_t pack_tile(const WeightSource& source, const int32_t* rows, int64_t n_rows, int64_t tile,
                  uint8_t* dst) {
  const int64_t first = tile * kTile;
  const int64_t n = std::min(kTile, n_rows - first);
  if (n < kTile) std::memset(dst, 0, static_cast<size_t>(tile_bytes(source.type, source.cols)));
  int64_t bad = 0;
  for (int64_t lane = 0; lane < n; ++lane) {
    const int64_t row = rows ? rows[first + lane] : first + lane;
    const uint8_t* src = source.data + row * source.row_bytes();
    switch (source.type) {
      case DType::kF32:
        bad += pack_float_row<float>(src, source.cols, lane, reinterpret_cast<float*>(dst),
                                     [](float v) { return bool(std::isfinite(v)); });
        break;
      case DType::kF16:
        bad += pack_float_row<uint16_t>(src, source.cols, lane, reinterpret_cast<uint16_t*>(dst),
                                        finite_f16);
        break;
      case DType::kBF16:
        bad += pack_float_row<uint16_t>(src, source.cols, lane, reinterpret_cast<uint16_t*>(dst),
                                        finite_bf16);
        break;
      case DType::kQ8_0:
        bad += pack_quantized_row(src, source.cols / 32, sizeof(BlockQ8_0), lane, dst);
        break;
      case DType::kQ4_0:
        bad += pack_quantized_row(src, source.cols / 32, sizeof(BlockQ4_0), lane, dst);
        break;
    }
  }
  return bad;
}

void dequantize(const WeightSource& source, int64_t row, int64_t begin, int64_t n, float* dst) {
  const uint8_t* src = source.data + row * source.row_bytes();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t k = begin + i;
    switch (source.type) {
      case DType::kF32:
        dst[i] = element_f32(src + k * 4);
        break;
      case DType::kF16:
        dst[i] = gemtp_f16_to_f32(load_u16(src + k * 2));
        break;
      case DType::kBF16:
        dst[i] = gemtp_bf16_to_f32(load_u16(src + k * 2));
        break;
      case DType::kQ8_0: {
        const uint8_t* block = src + k / 32 * static_cast<int64_t>(sizeof(BlockQ8_0));
        dst[i] = gemtp_f16_to_f32(load_u16(block)) *
                 static_cast<float>(static_cast<int8_t>(block[2 + k % 32]));
        break;
      }
      case DType::kQ4_0: {
        const uint8_t* block = src + k / 32 * static_cast<int64_t>(sizeof(BlockQ4_0));
        const int64_t j = k % 32;
        const int nibble = j < 16 ? block[2 + j] & 15 : block[2 + j - 16] >> 4;
        dst[i] = gemtp_f16_to_f32(load_u16(block)) * static_cast<float>(nibble - 8);
        break;
      }
    }
  }
}

}  // namespace gemtp
