#include "quantize/symmetric.h"

#include <cstring>

#include "quantize/fields.h"
#include "quantize/search.h"

namespace gemtp {
namespace {

// At most this many times a scale is refitted to its codes; they rarely change more than three
// times.
constexpr int kRefits = 6;

// Returns the scale, possibly negative, with the least error of every group by itself. For given
// codes q the best scale is sum(w x q) / sum(w q q), and the error that it leaves is sum(w x x)
// less sum(w x q)^2 / sum(w q q). The search is over the codes. It tries those of scales close to
// the one that maps the largest value to the outermost level, then refits the best of them.
template <int N, class Levels>
Floats fit_scale(const Groups<N>& groups, const Levels& levels) {
  Floats peak{};
  for (const Floats& v : groups.x) peak = magnitude(v) > magnitude(peak) ? v : peak;
  peak = peak == 0 ? Floats{} + 1.0f : peak;  // any: no codes reduce the error of zeros
  Doubles best{};                             // error reduction of the best codes
  Floats scale{}, q[N];
  // Keeps what is better than the best so far; returns where that is so.
  const auto attempt = [&](Floats inverse) {
    groups.round(inverse, Floats{}, levels, q);
    const Doubles xq = __builtin_convertvector(groups.wxq(q), Doubles),
                  qq = __builtin_convertvector(groups.wqq(q), Doubles);
    const auto better = (qq > 0) & (xq * xq > best * qq);
    best = better ? xq * xq / qq : best;
    const FloatMask kept = __builtin_convertvector(better, FloatMask);
    scale = kept ? __builtin_convertvector(xq / qq, Floats) : scale;
    return kept;
  };
  const float step = 0.2f / levels.fineness();
  for (int k = -5; k <= 5; ++k) {
    const float factor = 1.0f + step * static_cast<float>(k);
    attempt(levels.low * factor / peak);
    if (levels.fineness() <= 8) attempt(levels.high * factor / peak);
  }
  for (int k = 0; k < kRefits && any(attempt(inverse_of(scale))); ++k) {
  }
  return scale;
}

// Rounds x to d * levels, with d as stored; returns the errors.
template <int N, class Levels>
Floats round_groups(const Groups<N>& groups, Floats d, const Levels& levels, Floats (&q)[N]) {
  const Floats zero{};
  groups.round(inverse_of(d), zero, levels, q);
  return groups.error(d, zero, q);
}

// Finds scales of four blocks of 32 values, and their levels.
template <class Levels>
struct SingleScales {
  Floats d, q[32];

  SingleScales(const float* x, const float* w, const Levels& levels) {
    Groups<32> groups;
    groups.set(x, w);
    d = fit_scale(groups, levels);
    for (int g = 0; g < kLanes; ++g) d[g] = to_f16(d[g]);
    round_groups(groups, d, levels, q);
  }
};

// Calls put(d, codes) for four blocks of 32 integers from -half to half - 1.
template <class Put>
void search_integers(const float* x, const float* w, float half, const Put& put) {
  const SingleScales found(x, w, IntegerLevels{-half, half - 1});
  uint8_t codes[Groups<32>::kValues];
  Groups<32>::put_codes(found.q, -half, codes);
  for (int block = 0; block < kLanes; ++block) put(found.d[block], codes + 32 * block);
}

// A block of 256 values in groups of N, four groups in a `part`. Each group has an integer scale
// from -bound to bound - 1; the block has an f16 factor d.
template <int N, class Levels>
class ScaledGroups {
 public:
  ScaledGroups(const float* x, const float* w, const Levels& levels, float bound)
      : levels_(levels), bound_(bound) {
    float peak = 0;
    for (int p = 0; p < kParts; ++p) {
      parts_[p].set(x + p * Groups<N>::kValues, w + p * Groups<N>::kValues);
      fitted_[p] = fit_scale(parts_[p], levels);
      for (int g = 0; g < kLanes; ++g)
        if (std::fabs(fitted_[p][g]) > std::fabs(peak)) peak = fitted_[p][g];
    }
    // Scales are rounded to multiples of d; then d is refitted to the rounded scales and their
    // codes.
    float d = covering_f16(peak / -bound);
    double least = HUGE_VAL;
    for (int k = 0; k < 4; ++k) {
      const float next = assign(d, &least);
      if (next == d) break;
      d = next;
    }
  }

  float d() const { return best_d_; }
  int scale(int g) const { return static_cast<int>(best_scale_[g / kLanes][g % kLanes]); }
  /// The level of value i of group g.
  float level(int g, int i) const { return best_q_[g / kLanes][i][g % kLanes]; }
  void codes(uint8_t* out) const {
    for (int p = 0; p < kParts; ++p)
      Groups<N>::put_codes(best_q_[p], levels_.low, out + p * Groups<N>::kValues);
  }

 private:
  static constexpr int kParts = 256 / Groups<N>::kValues;

  // Finds the best scales for this d and keeps them if they leave less than the least error so far.
  // Returns the d to try next.
  float assign(float d, double* least) {
    Floats q[kParts][N], scale[kParts];
    double error = 0, xq = 0, qq = 0;
    for (int p = 0; p < kParts; ++p) {
      const Floats errors = choose_scales(parts_[p], fitted_[p], d, &scale[p], q[p]);
      const Floats wxq = parts_[p].wxq(q[p]), wqq = parts_[p].wqq(q[p]);
      for (int g = 0; g < kLanes; ++g) {
        const double s = scale[p][g];
        error += errors[g];
        xq += s * wxq[g];
        qq += s * s * wqq[g];
      }
    }
    if (error < *least) {
      *least = error;
      best_d_ = d;
      std::memcpy(best_scale_, scale, sizeof scale);
      std::memcpy(best_q_, q, sizeof q);
    }
    return qq > 0 ? to_f16(static_cast<float>(xq / qq)) : d;
  }

  // Chooses the better of the two integers next to fitted / d; returns their errors.
  Floats choose_scales(const Groups<N>& part, Floats fitted, float d, Floats* scale,
                       Floats (&q)[N]) const {
    const Floats ideal = std::fabs(d) > kZero ? fitted / d : Floats{};
    const Floats within = clamp(ideal, -bound_, bound_ - 1), whole = truncate(within);
    const Floats below = whole > within ? whole - 1.0f : whole;
    const Floats above = below + 1.0f < bound_ ? below + 1.0f : below;
    const Floats error = round_groups(part, d * above, levels_, q);
    *scale = error < round_groups(part, d * below, levels_, q) ? above : below;
    return round_groups(part, d * *scale, levels_, q);
  }

  const Levels levels_;
  const float bound_;
  Groups<N> parts_[kParts];
  Floats fitted_[kParts];
  float best_d_ = 0;
  Floats best_scale_[kParts] = {};
  Floats best_q_[kParts][N] = {};
};

}  // namespace

void search_q4_0(const float* x, const float* w, uint8_t* out) {
  search_integers(x, w, 8, [&](float d, const uint8_t* codes) {
    put_f16(out, d);
    put_nibbles(out + 2, codes);
    out += 18;
  });
}

void search_q5_0(const float* x, const float* w, uint8_t* out) {
  search_integers(x, w, 16, [&](float d, const uint8_t* codes) {
    put_f16(out, d);
    put_fifth_bits(out + 2, codes);
    put_nibbles(out + 6, codes);
    out += 22;
  });
}

void search_iq4_nl(const float* x, const float* w, uint8_t* out) {
  const SingleScales found(x, w, Iq4Levels{});
  for (int block = 0; block < kLanes; ++block, out += 18) {
    uint8_t codes[32];
    for (int i = 0; i < 32; ++i) codes[i] = Iq4Levels::code(found.q[i][block]);
    put_f16(out, found.d[block]);
    put_nibbles(out + 2, codes);
  }
}

void search_iq4_xs(const float* x, const float* w, uint8_t* out) {
  const ScaledGroups<32, Iq4Levels> found(x, w, Iq4Levels{}, 32);
  put_f16(out, found.d());
  int high = 0, low[4] = {};
  for (int g = 0; g < 8; ++g) {
    const int scale = found.scale(g) + 32;
    low[g / 2] |= (scale & 15) << 4 * (g % 2);
    high |= (scale >> 4) << 2 * g;
  }
  put_u16(out + 2, static_cast<uint16_t>(high));
  for (int i = 0; i < 4; ++i) out[4 + i] = static_cast<uint8_t>(low[i]);
  for (int g = 0; g < 8; ++g) {
    uint8_t codes[32];
    for (int i = 0; i < 32; ++i) codes[i] = Iq4Levels::code(found.level(g, i));
    put_nibbles(out + 8 + 16 * g, codes);
  }
}

// Layout: bit 2 of the codes, their low two bits, scales + 32 in six bits, d.
void search_q3_k(const float* x, const float* w, uint8_t* out) {
  const ScaledGroups<16, IntegerLevels> found(x, w, {-4, 3}, 32);
  uint8_t codes[256];
  found.codes(codes);
  put_bits_256(out, codes, 2);
  put_pairs_256(out + 32, codes);
  int scales[12] = {};
  for (int g = 0; g < 16; ++g) {
    const int scale = found.scale(g) + 32;
    scales[g % 8] |= (scale & 15) << 4 * (g / 8);
    scales[8 + g % 4] |= (scale >> 4) << 2 * (g / 4);
  }
  for (int i = 0; i < 12; ++i) out[96 + i] = static_cast<uint8_t>(scales[i]);
  put_f16(out + 108, found.d());
}

// Layout: the low four bits of the codes, 128 at a time (byte j of 64 holds codes j and j + 64);
// their bits 4 and 5 (byte j of 32 holds codes j, j + 32, j + 64 and j + 96); scales; d.
void search_q6_k(const float* x, const float* w, uint8_t* out) {
  const ScaledGroups<16, IntegerLevels> found(x, w, {-32, 31}, 128);
  uint8_t codes[256], high[256];
  found.codes(codes);
  for (int i = 0; i < 256; ++i) high[i] = codes[i] >> 4;
  for (int half = 0; half < 2; ++half)
    for (int j = 0; j < 64; ++j)
      out[64 * half + j] = static_cast<uint8_t>((codes[128 * half + j] & 15) |
                                                (codes[128 * half + 64 + j] & 15) << 4);
  put_pairs_256(out + 128, high);
  for (int g = 0; g < 16; ++g)
    out[192 + g] = static_cast<uint8_t>(static_cast<int8_t>(found.scale(g)));
  put_f16(out + 208, found.d());
}

}  // namespace gemtp
