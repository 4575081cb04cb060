#include "gguf/blocks.h"

#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/float16.h"
#include "gguf/grids.h"

namespace gemtp {
namespace {

uint16_t u16_at(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
uint32_t u32_at(const uint8_t* p) { return u16_at(p) | uint32_t{u16_at(p + 2)} << 16; }
float f16_at(const uint8_t* p) { return gemtp_f16_to_f32(u16_at(p)); }

// ---- quants as fields of bits -------------------------------------------------------------------

// kWidth bytes hold 8 / kBits fields each, in order from the lowest bits: field f of byte l belongs
// to element kWidth * f + l.
template <int kBits, int kWidth>
void put_fields(const uint8_t* from, int8_t* q) {
  uint8_t bytes[kWidth];  // a copy, which cannot overlap with q
  std::memcpy(bytes, from, kWidth);
  for (int f = 0; f < 8 / kBits; ++f)
    for (int l = 0; l < kWidth; ++l)
      q[kWidth * f + l] = static_cast<int8_t>((bytes[l] >> kBits * f) & ((1 << kBits) - 1));
}

// Like put_fields, but adds the fields times 2^kShift.
template <int kBits, int kWidth, int kShift>
void add_fields(const uint8_t* from, int8_t* q) {
  uint8_t bytes[kWidth];
  std::memcpy(bytes, from, kWidth);
  for (int f = 0; f < 8 / kBits; ++f)
    for (int l = 0; l < kWidth; ++l)
      q[kWidth * f + l] = static_cast<int8_t>(
          q[kWidth * f + l] + (((bytes[l] >> kBits * f) & ((1 << kBits) - 1)) << kShift));
}

template <int kCount>
void add_all(int value, int8_t* q) {
  for (int i = 0; i < kCount; ++i) q[i] = static_cast<int8_t>(q[i] + value);
}

// Adds 16 times the bits of four bytes, in element order.
void add_bits_32(const uint8_t* from, int8_t* q) {
  for (int i = 0; i < 32; ++i)
    q[i] = static_cast<int8_t>(q[i] + (((from[i / 8] >> i % 8) & 1) << 4));
}

// Maps the low and high nibbles of kCount bytes, in the order of put_fields<4, kWidth>, through a
// table.
template <int kWidth, int kCount>
void put_table(const int8_t (&table)[16], const uint8_t* from, int8_t* q) {
  for (int at = 0; at < kCount; at += kWidth)
    for (int l = 0; l < kWidth; ++l) {
      q[2 * at + l] = table[from[at + l] & 15];
      q[2 * at + kWidth + l] = table[from[at + l] >> 4];
    }
}

// ---- scales -------------------------------------------------------------------------------------

// Sets d of a block without a minimum; the caller sets the groups' scales.
void group_scales(float d, DecodedBlock* out) {
  out->d = d;
  out->dmin = 0;
  std::memset(out->min, 0, sizeof out->min);
}

void one_scale(float d, DecodedBlock* out) {
  group_scales(d, out);
  std::fill_n(out->scale, 16, 1);
}

// Sets the fields for x = d * q + m.
void scale_and_offset(float d, float m, DecodedBlock* out) {
  out->d = d;
  out->dmin = -m;
  std::fill_n(out->scale, 16, 1);
  std::memset(out->min, 1, sizeof out->min);
}

template <class T>
void set_pair(T* groups, int pair, int value) {
  groups[2 * pair] = groups[2 * pair + 1] = static_cast<T>(value);
}

// Sets the scales of the 16 groups: a nibble n stands for the odd number 2n + 1.
void odd_scales(const uint8_t* nibbles, DecodedBlock* out) {
  for (int g = 0; g < 16; ++g) out->scale[g] = 2 * ((nibbles[g / 2] >> g % 2 * 4) & 15) + 1;
}

// Reads the head of a Q4_K or Q5_K block: d and dmin, then 8 scales and 8 minimums of 6 bits in 12
// bytes. Bytes 0..3 hold the first four scales and bytes 4..7 the first four minimums in their
// lower 6 bits. Bytes 8..11 hold the lower four bits of the other scales and minimums; their upper
// two bits are the upper bits of bytes 0..7.
void scales_and_minimums(const uint8_t* block, DecodedBlock* out) {
  out->d = f16_at(block);
  out->dmin = f16_at(block + 2);
  const uint8_t* s = block + 4;
  for (int j = 0; j < 4; ++j) {
    set_pair(out->scale, j, s[j] & 63);
    set_pair(out->min, j, s[4 + j] & 63);
    set_pair(out->scale, 4 + j, (s[8 + j] & 15) | (s[j] >> 6) << 4);
    set_pair(out->min, 4 + j, (s[8 + j] >> 4) | (s[4 + j] >> 6) << 4);
  }
}

// ---- quants from a grid -------------------------------------------------------------------------

using SignTable = std::array<std::array<int8_t, 8>, 256>;

// -1 where bit i of the index is set, 0 elsewhere.
constexpr SignTable kSigns = [] {
  SignTable table{};
  for (int bits = 0; bits < 256; ++bits)
    for (int i = 0; i < 8; ++i) table[bits][i] = static_cast<int8_t>(-((bits >> i) & 1));
  return table;
}();

// Appends to 7 bits an eighth that makes the number of ones even.
int even_signs(uint32_t seven) {
  uint32_t parity = seven ^ (seven >> 4);
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return static_cast<int>(seven | (parity & 1) << 7);
}

// Writes 8 elements: a point of 8 dimensions, negated where a bit of `signs` is set.
void put_signed(const int8_t* point, int signs, int8_t* q) {
  const int8_t* negative = kSigns[static_cast<size_t>(signs)].data();
  for (int i = 0; i < 8; ++i) q[i] = static_cast<int8_t>((point[i] ^ negative[i]) - negative[i]);
}

// Writes 8 elements from two points of 4 dimensions.
void put_signed(const int8_t* first, const int8_t* second, int signs, int8_t* q) {
  int8_t point[8];
  std::memcpy(point, first, 4);
  std::memcpy(point + 4, second, 4);
  put_signed(point, signs, q);
}

void put_shifted(const int8_t* point, int shift, int8_t* q) {
  for (int i = 0; i < 8; ++i) q[i] = static_cast<int8_t>(point[i] + shift);
}

// ---- the types ----------------------------------------------------------------------------------

void decode_q4_0(const uint8_t* b, DecodedBlock* out) {
  one_scale(f16_at(b), out);
  put_fields<4, 16>(b + 2, out->q);
  add_all<32>(-8, out->q);
}

void decode_q4_1(const uint8_t* b, DecodedBlock* out) {
  scale_and_offset(f16_at(b), f16_at(b + 2), out);
  put_fields<4, 16>(b + 4, out->q);
}

void decode_q5_0(const uint8_t* b, DecodedBlock* out) {
  one_scale(f16_at(b), out);
  put_fields<4, 16>(b + 6, out->q);
  add_bits_32(b + 2, out->q);
  add_all<32>(-16, out->q);
}

void decode_q5_1(const uint8_t* b, DecodedBlock* out) {
  scale_and_offset(f16_at(b), f16_at(b + 2), out);
  put_fields<4, 16>(b + 8, out->q);
  add_bits_32(b + 4, out->q);
}

void decode_q8_0(const uint8_t* b, DecodedBlock* out) {
  one_scale(f16_at(b), out);
  std::memcpy(out->q, b + 2, 32);
}

// Layout: 16 scales and minimums as nibbles, 64 bytes of quants, d, dmin.
void decode_q2_k(const uint8_t* b, DecodedBlock* out) {
  out->d = f16_at(b + 80);
  out->dmin = f16_at(b + 82);
  for (int g = 0; g < 16; ++g) {
    out->scale[g] = b[g] & 15;
    out->min[g] = static_cast<int8_t>(b[g] >> 4);
  }
  for (int half = 0; half < 2; ++half) put_fields<2, 32>(b + 16 + 32 * half, out->q + 128 * half);
}

// Layout: 32 bytes of third bits, 64 bytes of lower bits (two each), 12 bytes of 16 6-bit scales
// (offset 32), d.
void decode_q3_k(const uint8_t* b, DecodedBlock* out) {
  group_scales(f16_at(b + 108), out);
  const uint8_t* s = b + 96;  // lower four bits of scales g and g + 8, then upper two
  for (int g = 0; g < 16; ++g) {
    const int low = (s[g % 8] >> g / 8 * 4) & 15, high = (s[8 + g % 4] >> g / 4 * 2) & 3;
    out->scale[g] = (low | high << 4) - 32;
  }
  for (int half = 0; half < 2; ++half) put_fields<2, 32>(b + 32 + 32 * half, out->q + 128 * half);
  add_fields<1, 32, 2>(b, out->q);
  add_all<256>(-4, out->q);
}

void decode_q4_k(const uint8_t* b, DecodedBlock* out) {
  scales_and_minimums(b, out);
  for (int c = 0; c < 4; ++c) put_fields<4, 32>(b + 16 + 32 * c, out->q + 64 * c);
}

// Layout: that of Q4_K with 32 bytes of fifth bits before the nibbles.
void decode_q5_k(const uint8_t* b, DecodedBlock* out) {
  scales_and_minimums(b, out);
  for (int c = 0; c < 4; ++c) put_fields<4, 32>(b + 48 + 32 * c, out->q + 64 * c);
  add_fields<1, 32, 4>(b + 16, out->q);
}

// Layout: 128 bytes of nibbles, 64 bytes of upper bits (two each), 16 int8 scales, d.
void decode_q6_k(const uint8_t* b, DecodedBlock* out) {
  group_scales(f16_at(b + 208), out);
  for (int g = 0; g < 16; ++g) out->scale[g] = static_cast<int8_t>(b[192 + g]);
  for (int half = 0; half < 2; ++half) {
    put_fields<4, 64>(b + 64 * half, out->q + 128 * half);
    add_fields<2, 32, 4>(b + 128 + 32 * half, out->q + 128 * half);
  }
  add_all<256>(-32, out->q);
}

void decode_iq4_nl(const uint8_t* b, DecodedBlock* out) {
  one_scale(f16_at(b), out);
  put_table<16, 16>(kIq4Values, b + 2, out->q);
}

// Layout: d, the upper two bits of 8 scales (offset 32), their lower nibbles, 128 bytes of quants.
void decode_iq4_xs(const uint8_t* b, DecodedBlock* out) {
  group_scales(f16_at(b), out);
  const int high = u16_at(b + 2);
  for (int j = 0; j < 8; ++j)
    set_pair(out->scale, j, (((b[4 + j / 2] >> j % 2 * 4) & 15) | ((high >> 2 * j) & 3) << 4) - 32);
  put_table<16, 128>(kIq4Values, b + 8, out->q);
}

// Layout: one byte of scale e, then the nibbles. The doubled numbers have the scale 2^(e - 128); e
// = 255 means NaN (here infinity).
void decode_mxfp4(const uint8_t* b, DecodedBlock* out) {
  const uint32_t e = b[0];
  const uint32_t bits = e < 2 ? uint32_t{0x200000} << e : (e == 255 ? e : e - 1) << 23;
  one_scale(gemtp_f32_from_bits(bits), out);
  put_table<16, 16>(kFloat4Values, b + 1, out->q);
}

// Layout: a byte of scale for each group of 16, then the groups' nibbles, 8 bytes each: elements 0
// to 7 in the lower ones. A scale is a float of 4 bits of exponent and 3 of mantissa without a sign
// (its eighth bit means nothing, and 127 is zero), halved for the doubled numbers.
void decode_nvfp4(const uint8_t* b, DecodedBlock* out) {
  group_scales(0x1p-10f, out);
  std::fill_n(out->scale, 16, 0);
  for (int g = 0; g < 4; ++g) {
    const int exponent = (b[g] >> 3) & 15, mantissa = b[g] & 7;
    out->scale[g] = b[g] == 127 ? 0 : exponent == 0 ? mantissa : (8 + mantissa) << (exponent - 1);
    put_table<8, 8>(kFloat4Values, b + 4 + 8 * g, out->q + 16 * g);
  }
}

// Layout: d, then for every 32 elements four bytes, each the index of a point, and a word with the
// points' signs, 7 bits each, and a scale in its top bits.
void decode_iq2_xxs(const uint8_t* b, DecodedBlock* out) {
  group_scales(f16_at(b) * 0.125f, out);
  for (int j = 0; j < 8; ++j) {
    const uint8_t* points = b + 2 + 8 * j;
    const uint32_t word = u32_at(points + 4);
    set_pair(out->scale, j, static_cast<int>(2 * (word >> 28) + 1));
    for (int i = 0; i < 4; ++i)
      put_signed(kGridIq2Xxs.point[points[i]], even_signs((word >> 7 * i) & 127),
                 out->q + 32 * j + 8 * i);
  }
}

// Layout: d, 32 words of a point's index (9 bits) and its signs (7 bits), 16 scales.
void decode_iq2_xs(const uint8_t* b, DecodedBlock* out) {
  group_scales(f16_at(b) * 0.125f, out);
  odd_scales(b + 66, out);
  for (int i = 0; i < 32; ++i) {
    const uint32_t word = u16_at(b + 2 + 2 * i);
    put_signed(kGridIq2Xs.point[word & 511], even_signs(word >> 9), out->q + 8 * i);
  }
}

// Layout: d, lower bytes of 32 point indices, the signs, two upper bits of each index, 16 scales.
void decode_iq2_s(const uint8_t* b, DecodedBlock* out) {
  group_scales(f16_at(b) * 0.125f, out);
  odd_scales(b + 74, out);
  const uint8_t *low = b + 2, *signs = b + 34, *high = b + 66;
  for (int i = 0; i < 32; ++i) {
    const int point = low[i] | ((high[i / 4] >> i % 4 * 2) & 3) << 8;
    put_signed(kGridIq2S.point[point], signs[i], out->q + 8 * i);
  }
}

// Layout: d, 64 point indices, then for every 32 elements a word of signs with a scale in its top
// bits.
void decode_iq3_xxs(const uint8_t* b, DecodedBlock* out) {
  group_scales(f16_at(b) * 0.25f, out);
  for (int j = 0; j < 8; ++j) {
    const uint8_t* points = b + 2 + 8 * j;
    const uint32_t word = u32_at(b + 66 + 4 * j);
    set_pair(out->scale, j, static_cast<int>(2 * (word >> 28) + 1));
    for (int i = 0; i < 4; ++i)
      put_signed(kGridIq3Xxs.point[points[2 * i]], kGridIq3Xxs.point[points[2 * i + 1]],
                 even_signs((word >> 7 * i) & 127), out->q + 32 * j + 8 * i);
  }
}

// Layout: d, lower bytes of 64 point indices, their ninth bits, the signs, 8 scales.
void decode_iq3_s(const uint8_t* b, DecodedBlock* out) {
  group_scales(f16_at(b), out);
  const uint8_t *low = b + 2, *high = b + 66, *signs = b + 74, *scales = b + 106;
  for (int j = 0; j < 8; ++j) set_pair(out->scale, j, 2 * ((scales[j / 2] >> j % 2 * 4) & 15) + 1);
  for (int i = 0; i < 32; ++i) {
    const int ninth = high[i / 4] >> i % 4 * 2;  // the bits of two points
    const int first = low[2 * i] | (ninth & 1) << 8, second = low[2 * i + 1] | (ninth & 2) << 7;
    put_signed(kGridIq3S.point[first], kGridIq3S.point[second], signs[i], out->q + 8 * i);
  }
}

// Layout: d, lower bytes of 32 point indices, then for every 32 elements a word: three upper bits
// of each of four indices, the scale, and a bit for the direction in which all elements are
// shifted.
void decode_iq1_s(const uint8_t* b, DecodedBlock* out) {
  group_scales(f16_at(b) * 0.125f, out);
  for (int j = 0; j < 8; ++j) {
    const int word = u16_at(b + 34 + 2 * j);
    set_pair(out->scale, j, 2 * ((word >> 12) & 7) + 1);
    for (int i = 0; i < 4; ++i) {
      const int point = b[2 + 4 * j + i] | ((word >> 3 * i) & 7) << 8;
      put_shifted(kGridIq1.point[point], word >> 15 ? -1 : 1, out->q + 32 * j + 8 * i);
    }
  }
}

// Layout: lower bytes of 32 point indices, nibbles of three upper bits and one bit for the shift,
// then four words, each with four 3-bit scales and a quarter of d in its top bits.
void decode_iq1_m(const uint8_t* b, DecodedBlock* out) {
  const uint8_t* words = b + 48;
  int d = 0;
  for (int w = 0; w < 4; ++w) {
    const int word = u16_at(words + 2 * w);
    d |= (word >> 12) << 4 * w;
    for (int g = 0; g < 4; ++g) out->scale[4 * w + g] = 2 * ((word >> 3 * g) & 7) + 1;
  }
  group_scales(gemtp_f16_to_f32(static_cast<uint16_t>(d)) * 0.125f, out);
  for (int i = 0; i < 32; ++i) {
    const int nibble = (b[32 + i / 2] >> i % 2 * 4) & 15;
    put_shifted(kGridIq1.point[b[i] | (nibble & 7) << 8], nibble & 8 ? -1 : 1, out->q + 8 * i);
  }
}

void decode(DType type, const uint8_t* block, DecodedBlock* out) {
  switch (type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
    case DType::kQ4_0:
      return decode_q4_0(block, out);
    case DType::kQ4_1:
      return decode_q4_1(block, out);
    case DType::kQ5_0:
      return decode_q5_0(block, out);
    case DType::kQ5_1:
      return decode_q5_1(block, out);
    case DType::kQ8_0:
      return decode_q8_0(block, out);
    case DType::kQ2_K:
      return decode_q2_k(block, out);
    case DType::kQ3_K:
      return decode_q3_k(block, out);
    case DType::kQ4_K:
      return decode_q4_k(block, out);
    case DType::kQ5_K:
      return decode_q5_k(block, out);
    case DType::kQ6_K:
      return decode_q6_k(block, out);
    case DType::kIQ2_XXS:
      return decode_iq2_xxs(block, out);
    case DType::kIQ2_XS:
      return decode_iq2_xs(block, out);
    case DType::kIQ2_S:
      return decode_iq2_s(block, out);
    case DType::kIQ3_XXS:
      return decode_iq3_xxs(block, out);
    case DType::kIQ3_S:
      return decode_iq3_s(block, out);
    case DType::kIQ1_S:
      return decode_iq1_s(block, out);
    case DType::kIQ1_M:
      return decode_iq1_m(block, out);
    case DType::kIQ4_NL:
      return decode_iq4_nl(block, out);
    case DType::kIQ4_XS:
      return decode_iq4_xs(block, out);
    case DType::kMXFP4:
      return decode_mxfp4(block, out);
    case DType::kNVFP4:
      return decode_nvfp4(block, out);
  }
  GEMTP_ASSERT(!"a type without a decoder");
}

}  // namespace

bool decode_block(DType type, const uint8_t* block, DecodedBlock* out) {
  decode(type, block, out);
  return std::isfinite(out->d) && std::isfinite(out->dmin);
}

void dequantize_block(const DecodedBlock& block, int n, float* out) {
  for (int first = 0; first < n; first += 16) {
    const float d = block.d * static_cast<float>(block.scale[first / 16]);
    const float min = block.dmin * static_cast<float>(block.min[first / 16]);
    for (int i = 0; i < 16; ++i) out[first + i] = d * static_cast<float>(block.q[first + i]) - min;
  }
}

}  // namespace gemtp
