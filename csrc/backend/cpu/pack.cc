#include "backend/cpu/pack.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/cpu/kernels.h"
#include "base/float16.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace gemtp {
namespace {

constexpr int64_t kTile = GEMTP_TILE;

template <class T>
T load_as(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}

inline bool finite_f32(uint32_t v) { return (v & 0x7f800000u) != 0x7f800000u; }
inline bool finite_f16(uint16_t h) { return (h & 0x7c00u) != 0x7c00u; }
inline bool finite_bf16(uint16_t h) { return (h & 0x7f80u) != 0x7f80u; }

// The rows of one tile, walked side by side: as many sequential streams of reads, and writes
// that never go back.
struct TileRows {
  const uint8_t* row[kTile];
};

// Turns 4 rows of 4 words into 4 columns: word j of row i goes to dst[j * 16 + i].
inline void transpose_words(const uint8_t* r0, const uint8_t* r1, const uint8_t* r2,
                            const uint8_t* r3, uint8_t* dst) {
#if defined(__x86_64__) || defined(_M_X64)
  const auto load = [](const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  };
  const auto store = [dst](int j, __m128i v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + j * 4 * kTile), v);
  };
  const __m128i a = load(r0), b = load(r1), c = load(r2), d = load(r3);
  const __m128i ab = _mm_unpacklo_epi32(a, b), AB = _mm_unpackhi_epi32(a, b);
  const __m128i cd = _mm_unpacklo_epi32(c, d), CD = _mm_unpackhi_epi32(c, d);
  store(0, _mm_unpacklo_epi64(ab, cd));
  store(1, _mm_unpackhi_epi64(ab, cd));
  store(2, _mm_unpacklo_epi64(AB, CD));
  store(3, _mm_unpackhi_epi64(AB, CD));
#elif defined(__aarch64__)
  const auto load = [](const uint8_t* p) { return vreinterpretq_u32_u8(vld1q_u8(p)); };
  const uint32x4x4_t rows = {{load(r0), load(r1), load(r2), load(r3)}};
  uint32_t words[16];
  vst4q_u32(words, rows);
  for (int j = 0; j < 4; ++j) std::memcpy(dst + j * 4 * kTile, words + 4 * j, 16);
#else
  const uint8_t* const rows[4] = {r0, r1, r2, r3};
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) std::memcpy(dst + (j * kTile + i) * 4, rows[i] + j * 4, 4);
#endif
}

// 16 words of which the lower half-words go to dst and the upper ones behind them.
inline void split_half_words(const uint8_t* words, uint8_t* dst) {
  uint16_t low[kTile], high[kTile];
  for (int64_t i = 0; i < kTile; ++i) {
    const auto w = load_as<uint32_t>(words + i * 4);
    low[i] = static_cast<uint16_t>(w);
    high[i] = static_cast<uint16_t>(w >> 16);
  }
  std::memcpy(dst, low, sizeof low);
  std::memcpy(dst + sizeof low, high, sizeof high);
}

// `words` words from byte `at` of 16 rows -> [words][16], 4 words at a time.
inline void transpose_rows(const TileRows& from, int64_t at, int64_t words, uint8_t* dst) {
  for (int64_t w = 0; w < words; w += 4)
    for (int64_t lane = 0; lane < kTile; lane += 4)
      transpose_words(from.row[lane] + at + w * 4, from.row[lane + 1] + at + w * 4,
                      from.row[lane + 2] + at + w * 4, from.row[lane + 3] + at + w * 4,
                      dst + (w * kTile + lane) * 4);
}

template <class T, class Finite>
int64_t count_bad(const TileRows& from, int64_t begin, int64_t end, Finite finite) {
  int64_t bad = 0;
  for (const uint8_t* row : from.row) {
    int32_t seen = 0;
    for (int64_t k = begin; k < end; ++k)
      seen += !finite(load_as<T>(row + k * static_cast<int64_t>(sizeof(T))));
    bad += seen;
  }
  return bad;
}

// 16 rows of cols elements -> [cols][16]. T: the element's bits. Returns how many are not finite.
template <class T, class Finite>
int64_t pack_floats(const TileRows& from, int64_t cols, uint8_t* dst, Finite finite) {
  constexpr int64_t kSize = sizeof(T), kLine = 64 / kSize;  // a cache line of each row
  int64_t bad = 0, begin = 0;
  for (; begin + kLine <= cols; begin += kLine) {
    bad += count_bad<T>(from, begin, begin + kLine, finite);
    uint8_t* out = dst + begin * kTile * kSize;
    if constexpr (kSize == 4) {
      transpose_rows(from, begin * kSize, kLine, out);
    } else {
      uint8_t words[kLine / 2 * kTile * 4];
      transpose_rows(from, begin * kSize, kLine / 2, words);
      for (int64_t w = 0; w < kLine / 2; ++w)
        split_half_words(words + w * kTile * 4, out + w * kTile * 4);
    }
  }
  bad += count_bad<T>(from, begin, cols, finite);
  for (; begin < cols; ++begin)
    for (int64_t lane = 0; lane < kTile; ++lane)
      std::memcpy(dst + (begin * kTile + lane) * kSize, from.row[lane] + begin * kSize, sizeof(T));
  return bad;
}

// Quants go to `dst` group by group (4 bytes of a row at a time), the scales behind all quants.
template <int64_t kQuantBytes>
int64_t pack_blocks(const TileRows& from, int64_t blocks, uint8_t* dst) {
  constexpr int64_t kBytes = 2 + kQuantBytes;
  uint8_t* scales = dst + blocks * kQuantBytes * kTile;
  int64_t bad = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    uint16_t scale[kTile];
    for (int64_t lane = 0; lane < kTile; ++lane)
      scale[lane] = load_as<uint16_t>(from.row[lane] + b * kBytes);
    for (const uint16_t s : scale) bad += !finite_f16(s);
    std::memcpy(scales + b * kTile * 2, scale, sizeof scale);
    transpose_rows(from, b * kBytes + 2, kQuantBytes / 4, dst + b * kQuantBytes * kTile);
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
  std::vector<uint8_t> zero;  // stands in for the rows that the last tile lacks
  if (n_rows - first < kTile) zero.resize(static_cast<size_t>(source.row_bytes()));
  TileRows from;
  for (int64_t lane = 0; lane < kTile; ++lane) {
    const int64_t row = first + lane;
    from.row[lane] =
        row >= n_rows ? zero.data() : source.data + (rows ? rows[row] : row) * source.row_bytes();
  }
  switch (source.type) {
    case DType::kF32:
      return pack_floats<uint32_t>(from, source.cols, dst, finite_f32);
    case DType::kF16:
      return pack_floats<uint16_t>(from, source.cols, dst, finite_f16);
    case DType::kBF16:
      return pack_floats<uint16_t>(from, source.cols, dst, finite_bf16);
    case DType::kQ8_0:
      return pack_blocks<sizeof(BlockQ8_0::q)>(from, source.cols / 32, dst);
    case DType::kQ4_0:
      return pack_blocks<sizeof(BlockQ4_0::q)>(from, source.cols / 32, dst);
  }
  return 0;
}

void dequantize(const WeightSource& source, int64_t row, int64_t begin, int64_t n, float* dst) {
  const uint8_t* src = source.data + row * source.row_bytes();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t k = begin + i;
    switch (source.type) {
      case DType::kF32:
        dst[i] = load_as<float>(src + k * 4);
        break;
      case DType::kF16:
        dst[i] = gemtp_f16_to_f32(load_as<uint16_t>(src + k * 2));
        break;
      case DType::kBF16:
        dst[i] = gemtp_bf16_to_f32(load_as<uint16_t>(src + k * 2));
        break;
      case DType::kQ8_0: {
        const uint8_t* block = src + k / 32 * static_cast<int64_t>(sizeof(BlockQ8_0));
        dst[i] = gemtp_f16_to_f32(load_as<uint16_t>(block)) *
                 static_cast<float>(static_cast<int8_t>(block[2 + k % 32]));
        break;
      }
      case DType::kQ4_0: {
        const uint8_t* block = src + k / 32 * static_cast<int64_t>(sizeof(BlockQ4_0));
        const int64_t j = k % 32;
        const int nibble = j < 16 ? block[2 + j] & 15 : block[2 + j - 16] >> 4;
        dst[i] = gemtp_f16_to_f32(load_as<uint16_t>(block)) * static_cast<float>(nibble - 8);
        break;
      }
    }
  }
}

}  // namespace gemtp
