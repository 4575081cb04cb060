// The kernels for every 64-bit ARM processor: quantized dots in 16-bit products.
#include "backend/cpu/neon_quants.h"
#include "backend/cpu/vector_attention.h"

namespace {

// Repeats the quants of a group of four k four times.
inline int8x16_t broadcast4(const int8_t* q) {
  int32_t four;
  memcpy(&four, q, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

// Products of four output rows with one activation row, [row][4] in int16.
struct Products {
  int16x8_t first, second;  // rows 0 and 1, rows 2 and 3

  static GEMTP_INLINE Products of(int8x16_t w, int8x16_t x) {
    return {vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x)};
  }
  GEMTP_INLINE void add(int8x16_t w, int8x16_t x) {
    first = vmlal_s8(first, vget_low_s8(w), vget_low_s8(x));
    second = vmlal_high_s8(second, w, x);
  }
};

// Returns `start` plus the dot products of w, kGroups groups of four output rows, with one
// activation row.
template <int kMost, int kGroups>
GEMTP_INLINE int32x4_t dots_of_groups(const int8x16_t* w, const int8_t* x, int32x4_t start) {
  constexpr int kFit = 32767 / (127 * kMost);  // products that an int16 holds
  constexpr int kChain = kFit < kGroups ? kFit : kGroups;
  static_assert(kGroups % kChain == 0);
  int32x4_t first, second;
  GEMTP_UNROLL
  for (int begin = 0; begin < kGroups; begin += kChain) {
    Products sum = Products::of(w[begin], broadcast4(x + begin * 4));
    GEMTP_UNROLL
    for (int g = begin + 1; g < begin + kChain; ++g) sum.add(w[g], broadcast4(x + g * 4));
    if constexpr (2 * kChain <= kFit) {  // the sum of two lanes fits, too
      start = vpadalq_s16(start, vpaddq_s16(sum.first, sum.second));
    } else {
      first = begin == 0 ? vpaddlq_s16(sum.first) : vpadalq_s16(first, sum.first);
      second = begin == 0 ? vpaddlq_s16(sum.second) : vpadalq_s16(second, sum.second);
    }
  }
  if constexpr (2 * kChain <= kFit) return start;
  return vaddq_s32(start, vpaddq_s32(first, second));
}

struct Arithmetic {
  static constexpr int kRows = 3;

  template <int kMost, int kRows>
  static GEMTP_INLINE void whole(const int8x16_t* w, const int8_t* x, int32x4_t* sum) {
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i) sum[i] = dots_of_groups<kMost, 8>(w, x + i * kBlock, sum[i]);
  }

  template <int kMost, int kRows>
  static GEMTP_INLINE void halves(const int8x16_t* w, const int8_t* x, int32x4_t* first,
                                  int32x4_t* second) {
    const int32x4_t zero = vdupq_n_s32(0);
    GEMTP_UNROLL
    for (int i = 0; i < kRows; ++i, x += kBlock) {
      first[i] = dots_of_groups<kMost, 4>(w, x, zero);
      second[i] = dots_of_groups<kMost, 4>(w + 4, x + 16, zero);
    }
  }
};

template <int kOffset>
using Nibbles = ByRows<Arithmetic, NibbleQuants<kOffset>, false>;
template <int kOffset>
using Fives = ByRows<Arithmetic, FiveQuants<kOffset>, false>;
using Sixes = ByRows<Arithmetic, SixQuants, true>;
using Table = ByRows<Arithmetic, TableQuants, false>;
using GroupTable = ByRows<Arithmetic, TableQuants, true>;
using Bytes = ByRows<Arithmetic, SignedQuants, false>;

}  // namespace

#define GEMTP_TABLE gemtp_kernels_neon
#define GEMTP_TABLE_NAME "neon"
#include "backend/cpu/vector_table.h"
