#include "backend/cpu/pack.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/packed_form.h"
#include "backend/cpu/scalar_math.h"
#include "base/error.h"
#include "base/float16.h"
#include "gguf/blocks.h"

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

// Bits of a float: of infinity, and of the smallest number that does not count as zero (GEMTP_TINY;
// no f16 is smaller).
struct F32Bits {
  using Bits = uint32_t;
  static constexpr Bits kInfinity = 0x7f800000u, kLeast = 0x2b800000u;
};
struct F16Bits {
  using Bits = uint16_t;
  static constexpr Bits kInfinity = 0x7c00u, kLeast = 0;
};
struct Bf16Bits {
  using Bits = uint16_t;
  static constexpr Bits kInfinity = 0x7f80u, kLeast = 0x2b80u;
};

template <class Float>
bool finite(typename Float::Bits v) {
  return (v & Float::kInfinity) != Float::kInfinity;
}

// The rows of one tile, which are walked side by side: each is a sequential stream of reads, and
// writes never go back.
struct TileRows {
  const uint8_t* row[kTile];
};

// Transposes 4 rows of 4 words: word j of row i goes to dst[j * 16 + i].
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

// Stores the lower half-words of 16 words at dst and the upper ones after them.
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

template <class Float>
int64_t count_bad(const TileRows& from, int64_t begin, int64_t end) {
  using Bits = typename Float::Bits;
  int64_t bad = 0;
  for (const uint8_t* row : from.row) {
    int32_t seen = 0;
    for (int64_t k = begin; k < end; ++k)
      seen += !finite<Float>(load_as<Bits>(row + k * static_cast<int64_t>(sizeof(Bits))));
    bad += seen;
  }
  return bad;
}

// Replaces those of n floats that count as zero by zero.
template <class Float>
void flush(uint8_t* floats, int64_t n) {
  using Bits = typename Float::Bits;
  if constexpr (Float::kLeast == 0) return;
  for (int64_t i = 0; i < n; ++i, floats += sizeof(Bits)) {
    const Bits v = load_as<Bits>(floats), size = v & static_cast<Bits>(Bits(-1) >> 1);
    const Bits flushed = size < Float::kLeast ? 0 : v;
    std::memcpy(floats, &flushed, sizeof flushed);
  }
}

// Packs 16 rows of cols elements as [cols][16], flushed. Returns how many are not finite.
template <class Float>
int64_t pack_floats(const TileRows& from, int64_t cols, uint8_t* dst) {
  constexpr int64_t kSize = sizeof(typename Float::Bits), kLine = 64 / kSize;  // of a row
  int64_t bad = 0, begin = 0;
  for (; begin + kLine <= cols; begin += kLine) {
    bad += count_bad<Float>(from, begin, begin + kLine);
    uint8_t* out = dst + begin * kTile * kSize;
    if constexpr (kSize == 4) {
      transpose_rows(from, begin * kSize, kLine, out);
    } else {
      uint8_t words[kLine / 2 * kTile * 4];
      transpose_rows(from, begin * kSize, kLine / 2, words);
      for (int64_t w = 0; w < kLine / 2; ++w)
        split_half_words(words + w * kTile * 4, out + w * kTile * 4);
    }
    flush<Float>(out, kLine * kTile);
  }
  bad += count_bad<Float>(from, begin, cols);
  for (int64_t k = begin; k < cols; ++k)
    for (int64_t lane = 0; lane < kTile; ++lane)
      std::memcpy(dst + (k * kTile + lane) * kSize, from.row[lane] + k * kSize, kSize);
  flush<Float>(dst + begin * kTile * kSize, (cols - begin) * kTile);
  return bad;
}

// Quants go to `dst` group by group (4 bytes of a row at a time), the scales after all quants.
template <int64_t kQuantBytes>
int64_t pack_blocks(const TileRows& from, int64_t blocks, uint8_t* dst) {
  constexpr int64_t kBytes = 2 + kQuantBytes;
  uint8_t* scales = dst + blocks * kQuantBytes * kTile;
  int64_t bad = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    uint16_t scale[kTile];
    for (int64_t lane = 0; lane < kTile; ++lane)
      scale[lane] = load_as<uint16_t>(from.row[lane] + b * kBytes);
    for (const uint16_t s : scale) bad += !finite<F16Bits>(s);
    std::memcpy(scales + b * kTile * 2, scale, sizeof scale);
    transpose_rows(from, b * kBytes + 2, kQuantBytes / 4, dst + b * kQuantBytes * kTile);
  }
  return bad;
}

// ---- any quantized type, decoded to its integers
// -------------------------------------------------

inline uint32_t word_at(const uint8_t* p) { return load_as<uint32_t>(p); }
inline void put_word(uint8_t* p, uint32_t word) { std::memcpy(p, &word, 4); }

// Writes one lane of a block of nibbles, fives or sixes from its 32 codes; the places are those of
// kernels.h.
inline void put_nibbles(const uint8_t* codes, uint8_t* dst) {
  for (int g = 0; g < 4; ++g)
    put_word(dst + g * 4 * kTile, (word_at(codes + 4 * g) & 0x0f0f0f0fu) |
                                      (word_at(codes + 16 + 4 * g) & 0x0f0f0f0fu) << 4);
}
inline void put_fives(const uint8_t* codes, uint8_t* dst) {
  put_nibbles(codes, dst);
  uint32_t high = 0;
  for (int g = 0; g < 8; ++g) high |= (word_at(codes + 4 * g) >> 4 & 0x01010101u) << g;
  put_word(dst + 256, high);
}
inline void put_sixes(const uint8_t* codes, uint8_t* dst) {
  put_nibbles(codes, dst);
  for (int half = 0; half < 2; ++half) {
    uint32_t high = 0;
    for (int g = 0; g < 4; ++g)
      high |= (word_at(codes + 16 * half + 4 * g) >> 4 & 0x03030303u) << 2 * g;
    put_word(dst + 256 + half * 4 * kTile, high);
  }
}

// Stores the scales of one lane for a block of the file's type, which has `blocks` blocks of 32
// elements, from block `first` of the row on. s: beginning of the tile's scales.
void put_scales(gemtp_format format, const DecodedBlock& from, int64_t first, int64_t blocks,
                int64_t lane, uint8_t* s) {
  const auto put = [lane](uint8_t* array, auto value) {
    std::memcpy(array + lane * static_cast<int64_t>(sizeof value), &value, sizeof value);
  };
  const auto half = [](float v) { return gemtp_f32_to_f16(v); };
  switch (format) {
    case GEMTP_Q5_0:
    case GEMTP_IQ4_NL:
      return put(s + first * 32, half(from.d));
    case GEMTP_MXFP4:
      return put(s + first * 32, static_cast<uint16_t>(gemtp_f32_bits(gemtp_flush(from.d)) >> 16));
    case GEMTP_Q4_1:
    case GEMTP_Q5_1:
      put(s + first * 64, half(from.d));
      return put(s + first * 64 + 32, half(-from.dmin));
    case GEMTP_Q4_K:
    case GEMTP_Q5_K:
      s += first / 8 * 320;
      put(s, half(from.d));
      put(s + 32, half(-from.dmin));
      for (int64_t b = 0; b < blocks; ++b) {
        put(s + 64 + b * 32, static_cast<int8_t>(from.scale[2 * b]));
        put(s + 80 + b * 32, from.min[2 * b]);
      }
      return;
    case GEMTP_IQ4_XS:
      s += first / 8 * 160;
      put(s, half(from.d));
      for (int64_t b = 0; b < blocks; ++b)
        put(s + 32 + b * 16, static_cast<int8_t>(from.scale[2 * b]));
      return;
    case GEMTP_Q6_K:
    case GEMTP_T4_G:
      s += first / 8 * 320;
      put(s, from.d);
      for (int64_t g = 0; g < 2 * blocks; ++g)
        put(s + 64 + g * 16, static_cast<int8_t>(from.scale[g]));
      return;
    case GEMTP_T4_GM:
      s += first / 8 * 640;
      put(s, from.d);
      put(s + 64, -from.dmin);
      for (int64_t g = 0; g < 2 * blocks; ++g) {
        put(s + 128 + g / 2 * 64 + g % 2 * 16, static_cast<int8_t>(from.scale[g]));
        put(s + 160 + g / 2 * 64 + g % 2 * 16, from.min[g]);
      }
      return;
    default:
      GEMTP_ASSERT(!"a format whose blocks are packed as they are");
  }
}

// Returns the code of each quant: an index into a table, or quant + offset.
struct Codes {
  uint8_t of[256];

  Codes(const PackedForm& form) {
    const int offset = form.format == GEMTP_Q5_0 ? 16 : form.format == GEMTP_Q6_K ? 32 : 0;
    for (int q = 0; q < 256; ++q) of[q] = static_cast<uint8_t>(q + offset);
    for (int i = 15; form.table && i >= 0; --i)  // the first of equal values wins
      of[static_cast<uint8_t>(form.table[i])] = static_cast<uint8_t>(i);
  }
};

int64_t pack_decoded(const TileRows& from, DType type, int64_t cols, uint8_t* dst) {
  const PackedForm& form = packed_form(type);
  const Codes codes(form);
  const auto put_quants = form.block_bytes == 16   ? put_nibbles
                          : form.block_bytes == 20 ? put_fives
                                                   : put_sixes;
  const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
  const int64_t block_bytes = form.block_bytes * kTile, per_block = info.block / 32;
  uint8_t* scales = dst + cols / 32 * block_bytes;
  int64_t bad = 0;
  for (int64_t i = 0; i < cols / info.block; ++i)
    for (int64_t lane = 0; lane < kTile; ++lane) {
      DecodedBlock block;
      bad += !decode_block(type, from.row[lane] + i * info.bytes, &block);
      uint8_t code[256];
      for (int j = 0; j < info.block; ++j) code[j] = codes.of[static_cast<uint8_t>(block.q[j])];
      for (int64_t b = 0; b < per_block; ++b)
        put_quants(code + 32 * b, dst + (i * per_block + b) * block_bytes + lane * 4);
      put_scales(form.format, block, i * per_block, per_block, lane, scales);
    }
  return bad;
}

// Elements that are bfloat16 numbers without rounding -> [cols][16].
void pack_as_bf16(const TileRows& from, DType type, int64_t cols, uint8_t* dst) {
  const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
  for (int64_t i = 0; i < cols / info.block; ++i)
    for (int64_t lane = 0; lane < kTile; ++lane) {
      DecodedBlock block;
      float values[256];
      decode_block(type, from.row[lane] + i * info.bytes, &block);
      dequantize_block(block, info.block, values);
      for (int64_t k = 0; k < info.block; ++k) {
        const auto bits = static_cast<uint16_t>(gemtp_f32_bits(gemtp_flush(values[k])) >> 16);
        std::memcpy(dst + ((i * info.block + k) * kTile + lane) * 2, &bits, sizeof bits);
      }
    }
}

}  // namespace

int64_t pack_tile(DType type, int64_t cols, const uint8_t* const (&rows)[GEMTP_TILE],
                  uint8_t* dst) {
  std::vector<uint8_t> zero;  // used for the rows that the last tile lacks
  TileRows from;
  for (int64_t lane = 0; lane < kTile; ++lane) {
    if (!rows[lane]) zero.resize(static_cast<size_t>(WeightSource{type, 1, cols}.row_bytes()));
    from.row[lane] = rows[lane] ? rows[lane] : zero.data();
  }
  switch (type) {
    case DType::kF32:
      return pack_floats<F32Bits>(from, cols, dst);
    case DType::kF16:
      return pack_floats<F16Bits>(from, cols, dst);
    case DType::kBF16:
      return pack_floats<Bf16Bits>(from, cols, dst);
    case DType::kQ8_0:
      return pack_blocks<sizeof(BlockQ8_0::q)>(from, cols / 32, dst);
    case DType::kQ4_0:
    case DType::kIQ4_NL:  // Q4_0's blocks, with other values for the nibbles
      return pack_blocks<sizeof(BlockQ4_0::q)>(from, cols / 32, dst);
    case DType::kNVFP4:
      pack_as_bf16(from, type, cols, dst);
      return 0;  // no scale can be infinite
    default:
      return pack_decoded(from, type, cols, dst);
  }
}

void dequantize(const WeightSource& source, int64_t row, int64_t begin, int64_t n,
                Scratch<uint8_t>& buffer, float* dst) {
  const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(source.type));
  const int64_t first = begin / info.block, blocks = (begin + n - 1) / info.block + 1 - first;
  const uint8_t* src = source.bytes(row * source.row_bytes() + first * info.bytes,
                                    blocks * info.bytes, buffer.ensure(blocks * info.bytes));
  begin -= first * info.block;
  switch (source.type) {
    case DType::kF32:
      std::memcpy(dst, src + begin * 4, static_cast<size_t>(n) * 4);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i)
        dst[i] = gemtp_f16_to_f32(load_as<uint16_t>(src + (begin + i) * 2));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i)
        dst[i] = gemtp_bf16_to_f32(load_as<uint16_t>(src + (begin + i) * 2));
      return;
    default:
      break;
  }
  for (int64_t k = begin; k < begin + n;) {
    DecodedBlock block;
    float values[256];
    if (decode_block(source.type, src + k / info.block * info.bytes, &block))
      dequantize_block(block, info.block, values);
    else
      std::fill_n(values, info.block, std::numeric_limits<float>::quiet_NaN());
    const int64_t at = k % info.block, count = std::min(info.block - at, begin + n - k);
    std::memcpy(dst + (k - begin), values + at, static_cast<size_t>(count) * 4);
    k += count;
  }
}

}  // namespace gemtp
