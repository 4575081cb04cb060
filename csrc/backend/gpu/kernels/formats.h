// What a quantized format is made of, as backend/cpu/kernels.h lays it out in tiles of 16 rows:
// quants, read four elements at a time, and scales.
#pragma once

#include "backend/gpu/kernels/math.h"

namespace gemtp {
namespace gpu {

using Bytes = Global<const uint8_t>;
using Words = Global<const uint32_t>;

// ---- quants -------------------------------------------------------------------------------------
// codes(): of a row of a tile the elements 4c .. 4c + 3 and 16 + 4c .. of a block, a byte each. An
// element is its code, a signed byte, less kOffset. `row` is where the row's first word of the
// block lies, `group` where its word c does.

struct ByteQuants {
  GPU_INT kBytes = 512, kOffset = 0;
  static GPU_INLINE Words2 codes(Words, Words group, int, Words4) {
    return Words2{group[0], group[64]};
  }
};

template <int kOff>
struct Nibbles {
  GPU_INT kBytes = 256, kOffset = kOff;
  static GPU_INLINE Words2 codes(Words, Words group, int, Words4) {
    const uint32_t both = group[0];
    return Words2{both & 0x0f0f0f0fu, both >> 4 & 0x0f0f0f0fu};
  }
};

template <int kOff>
struct Fives {
  GPU_INT kBytes = 320, kOffset = kOff;
  static GPU_INLINE Words2 codes(Words row, Words group, int c, Words4 table) {
    const Words2 low = Nibbles<0>::codes(row, group, c, table);
    const uint32_t high = row[64] >> c;
    return Words2{low.x | (high & 0x01010101u) << 4, low.y | (high >> 4 & 0x01010101u) << 4};
  }
};

struct Sixes {
  GPU_INT kBytes = 384, kOffset = 32;
  static GPU_INLINE Words2 codes(Words row, Words group, int c, Words4 table) {
    const Words2 low = Nibbles<0>::codes(row, group, c, table);
    return Words2{low.x | (row[64] >> 2 * c & 0x03030303u) << 4,
                  low.y | (row[80] >> 2 * c & 0x03030303u) << 4};
  }
};

struct TableQuants {
  GPU_INT kBytes = 256, kOffset = 0;
  static GPU_INLINE Words2 codes(Words, Words group, int, Words4 table) {
    return look_up(group[0], table);
  }
};

// ---- scales -------------------------------------------------------------------------------------

/// Of a block of one row. Elements are scale * of_group[i / 16] * quant, plus, in formats with
/// minima, min * min_of_group[i / 16].
struct BlockScale {
  float scale, min;
  int of_group[2], min_of_group[2];
};
GPU_INLINE BlockScale plain_scale(float scale, float min) {
  return BlockScale{scale, min, {1, 1}, {1, 1}};
}

GPU_INLINE float half_at(Bytes p, int i) { return half_to_float(as_global<const uint16_t>(p)[i]); }

// at(): of block b of row r, from where a tile's scales begin.

struct HalfScale {
  GPU_INT kMin = 0, kGroups = 0;
  static GPU_INLINE BlockScale at(Bytes s, int b, int r) {
    return plain_scale(half_at(s, b * 16 + r), 0);
  }
};

struct Bf16Scale {
  GPU_INT kMin = 0, kGroups = 0;
  static GPU_INLINE BlockScale at(Bytes s, int b, int r) {
    return plain_scale(bf16_to_float(as_global<const uint16_t>(s)[b * 16 + r]), 0);
  }
};

struct HalfMinScale {
  GPU_INT kMin = 1, kGroups = 0;
  static GPU_INLINE BlockScale at(Bytes s, int b, int r) {
    return plain_scale(half_at(s, b * 32 + r), half_at(s, b * 32 + 16 + r));
  }
};

struct KScale {
  GPU_INT kMin = 1, kGroups = 0;
  static GPU_INLINE BlockScale at(Bytes s, int b, int r) {
    s = s + b / 8 * 320;
    const int i = 64 + b % 8 * 32 + r;
    return plain_scale(half_at(s, r) * float(s[i]), half_at(s, 16 + r) * float(s[i + 16]));
  }
};

struct SignedKScale {
  GPU_INT kMin = 0, kGroups = 0;
  static GPU_INLINE BlockScale at(Bytes s, int b, int r) {
    s = s + b / 8 * 160;
    return plain_scale(half_at(s, r) * float(int8_t(s[32 + b % 8 * 16 + r])), 0);
  }
};

template <int kWithMin>
struct GroupScale {
  GPU_INT kMin = kWithMin, kGroups = 1, kHead = kWithMin ? 128 : 64, kOfBlock = kHead / 2;
  static GPU_INLINE BlockScale at(Bytes s, int b, int r) {
    s = s + b / 8 * (kHead + 8 * kOfBlock);
    Global<const float> floats = as_global<const float>(s);
    BlockScale out = plain_scale(floats[r], kMin ? floats[(kMin ? 16 : 0) + r] : 0.0f);
    s = s + kHead + b % 8 * kOfBlock + r;
    for (int g = 0; g < 2; ++g) {
      out.of_group[g] = int8_t(s[g * 16]);
      if (kMin) out.min_of_group[g] = int8_t(s[32 + g * 16]);
    }
    return out;
  }
};

// ---- formats ------------------------------------------------------------------------------------

template <class QuantsOf, class ScalesOf>
struct Format {
  using Quants = QuantsOf;
  using Scales = ScalesOf;
};
using Q8_0 = Format<ByteQuants, HalfScale>;
using Q4_0 = Format<Nibbles<8>, HalfScale>;
using Q4_1 = Format<Nibbles<0>, HalfMinScale>;
using Q5_0 = Format<Fives<16>, HalfScale>;
using Q5_1 = Format<Fives<0>, HalfMinScale>;
using Q4_K = Format<Nibbles<0>, KScale>;
using Q5_K = Format<Fives<0>, KScale>;
using Q6_K = Format<Sixes, GroupScale<0> >;
using IQ4_NL = Format<TableQuants, HalfScale>;
using MXFP4 = Format<TableQuants, Bf16Scale>;
using IQ4_XS = Format<TableQuants, SignedKScale>;
using T4_G = Format<TableQuants, GroupScale<0> >;
using T4_GM = Format<TableQuants, GroupScale<1> >;

}  // namespace gpu
}  // namespace gemtp
