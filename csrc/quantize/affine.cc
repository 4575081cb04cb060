#include "quantize/affine.h"

#include <cstring>

#include "quantize/fields.h"
#include "quantize/search.h"

namespace gemtp {
namespace {

constexpr int kRefits = 6;

// x = scale * code - min, of every group.
struct Fit {
  Floats scale{}, min{};
};

// Returns the scales and minimums with the least error of every group by itself; with `signed_min`
// a minimum may be negative. For given codes q they solve the normal equations of least squares;
// the search is over the codes, as in fit_scale().
template <int N>
Fit fit_affine(const Groups<N>& groups, float top, bool signed_min) {
  Floats low = groups.x[0], high = groups.x[0];
  for (const Floats& v : groups.x) {
    low = v < low ? v : low;
    high = v > high ? v : high;
  }
  if (!signed_min) low = low > 0 ? Floats{} : low;
  const FloatMask ranging = high - low > kZero;  // the others are their minimum alone
  const IntegerLevels levels{0, top};
  const Doubles sum_w = __builtin_convertvector(groups.sum_w(), Doubles),
                sum_x = __builtin_convertvector(groups.sum_wx(), Doubles);
  Doubles best = Doubles{} - HUGE_VAL;  // error reduction of the best codes
  Fit fit{Floats{}, ranging ? Floats{} : -low};
  Floats q[N];
  // Keeps what is better than the best so far; returns where that is so.
  const auto attempt = [&](Floats inverse, Floats offset, FloatMask tried) {
    groups.round(inverse, offset, levels, q);
    const Doubles q1 = __builtin_convertvector(groups.wq(q), Doubles),
                  q2 = __builtin_convertvector(groups.wqq(q), Doubles),
                  xq = __builtin_convertvector(groups.wxq(q), Doubles);
    const Doubles det = sum_w * q2 - q1 * q1;
    const auto solvable = det > 1e-6 * sum_w * q2;
    Doubles scale = solvable ? (sum_w * xq - sum_x * q1) / det : Doubles{};
    Doubles min = solvable ? (q1 * xq - q2 * sum_x) / det : Doubles{};
    auto without_min = scale == 0;  // also if all codes are equal
    if (!signed_min) without_min |= min < 0;
    min = without_min ? Doubles{} : min;
    scale = without_min ? xq / q2 : scale;
    const Doubles gain = scale * xq - min * sum_x;
    const auto better = __builtin_convertvector(tried, DoubleMask) & (scale > 0) & (gain > best);
    best = better ? gain : best;
    const FloatMask kept = __builtin_convertvector(better, FloatMask);
    fit.scale = kept ? __builtin_convertvector(scale, Floats) : fit.scale;
    fit.min = kept ? __builtin_convertvector(min, Floats) : fit.min;
    return kept;
  };
  const Floats range = ranging ? high - low : Floats{} + 1.0f;
  for (int k = -5; k <= 5; ++k)
    attempt((top + 0.2f * static_cast<float>(k)) / range, -low, ranging);
  FloatMask improving = ranging;
  for (int k = 0; k < kRefits && any(improving); ++k) {
    improving &= fit.scale > kZero;
    improving = attempt(inverse_of(fit.scale), fit.min, improving);
  }
  return fit;
}

// Rounds x to scale * code - min, with scale and min as stored; returns the errors.
template <int N>
Floats round_groups(const Groups<N>& groups, const Fit& fit, float top, Floats (&q)[N]) {
  groups.round(inverse_of(fit.scale), fit.min, IntegerLevels{0, top}, q);
  return groups.error(fit.scale, fit.min, q);
}

// Finds scales and minimums of four blocks of 32 values, and their codes.
struct SingleScales {
  Fit fit;  // min is stored negated
  uint8_t codes[Groups<32>::kValues];

  SingleScales(const float* x, const float* w, float top) {
    Groups<32> groups;
    groups.set(x, w);
    fit = fit_affine(groups, top, /*signed_min=*/true);
    for (int g = 0; g < kLanes; ++g) {
      fit.scale[g] = to_f16(fit.scale[g]);
      fit.min[g] = -to_f16(-fit.min[g]);
    }
    Floats q[32];
    round_groups(groups, fit, top, q);
    groups.put_codes(q, 0, codes);
  }

  void put_scale_and_min(int block, uint8_t* out) const {
    put_f16(out, fit.scale[block]);
    put_f16(out + 2, -fit.min[block]);
  }
};

// A block of 256 values in groups of N, four groups in a `part`. Each group has an integer scale
// and minimum from 0 to bound; the block has f16 factors d and dmin. Codes range from 0 to top.
template <int N>
class AffineGroups {
 public:
  AffineGroups(const float* x, const float* w, float top, float bound) : top_(top), bound_(bound) {
    float scale = 0, min = 0;  // the largest ones
    for (int p = 0; p < kParts; ++p) {
      parts_[p].set(x + p * Groups<N>::kValues, w + p * Groups<N>::kValues);
      fitted_[p] = fit_affine(parts_[p], top, /*signed_min=*/false);
      for (int g = 0; g < kLanes; ++g) {
        scale = std::max(scale, fitted_[p].scale[g]);
        min = std::max(min, fitted_[p].min[g]);
      }
    }
    // Scales and minimums are rounded to multiples of d and dmin; then d and dmin are refitted to
    // the rounded integers and their codes.
    Units units{covering_f16(scale / bound), covering_f16(min / bound)};
    double least = HUGE_VAL;
    for (int k = 0; k < 4; ++k) {
      const Units next = assign(units, &least);
      if (next.d == units.d && next.dmin == units.dmin) break;
      units = next;
    }
  }

  float d() const { return best_units_.d; }
  float dmin() const { return best_units_.dmin; }
  int scale(int g) const { return static_cast<int>(best_[g / kLanes].scale[g % kLanes]); }
  int min(int g) const { return static_cast<int>(best_[g / kLanes].min[g % kLanes]); }
  void codes(uint8_t* out) const {
    for (int p = 0; p < kParts; ++p)
      Groups<N>::put_codes(best_q_[p], 0, out + p * Groups<N>::kValues);
  }

 private:
  static constexpr int kParts = 256 / Groups<N>::kValues;

  struct Units {
    float d, dmin;
  };

  // Finds the best integers for these units and keeps them if they leave less than the least error
  // so far. Returns the units to try next: with a = scale * q and c = min of every value, the
  // normal equations
  //   d sum(w a a) - dmin sum(w a c) = sum(w x a),  d sum(w a c) - dmin sum(w c c) = sum(w x c).
  Units assign(const Units& units, double* least) {
    Floats q[kParts][N];
    Fit chosen[kParts];
    double error = 0, aa = 0, ac = 0, cc = 0, xa = 0, xc = 0;
    for (int p = 0; p < kParts; ++p) {
      const Groups<N>& part = parts_[p];
      const Floats errors = choose(part, fitted_[p], units, &chosen[p], q[p]);
      const Floats w = part.sum_w(), wx = part.sum_wx(), wq = part.wq(q[p]), wqq = part.wqq(q[p]),
                   wxq = part.wxq(q[p]);
      for (int g = 0; g < kLanes; ++g) {
        const double s = chosen[p].scale[g], m = chosen[p].min[g];
        error += errors[g];
        aa += s * s * wqq[g];
        ac += s * m * wq[g];
        cc += m * m * w[g];
        xa += s * wxq[g];
        xc += m * wx[g];
      }
    }
    if (error < *least) {
      *least = error;
      best_units_ = units;
      std::memcpy(best_, chosen, sizeof chosen);
      std::memcpy(best_q_, q, sizeof q);
    }
    const double det = aa * cc - ac * ac;
    double d = units.d, dmin = units.dmin;
    if (det > 1e-6 * aa * cc) {
      d = (xa * cc - xc * ac) / det;
      dmin = (xa * ac - xc * aa) / det;
    } else if (aa > 0) {
      d = (xa + dmin * ac) / aa;
    }
    if (!(d > 0) || !(dmin >= 0)) return units;
    return {to_f16(static_cast<float>(d)), to_f16(static_cast<float>(dmin))};
  }

  // Chooses the best of the integers next to fitted / units; returns their errors.
  Floats choose(const Groups<N>& part, const Fit& fitted, const Units& units, Fit* chosen,
                Floats (&q)[N]) const {
    const auto below = [&](Floats value, float unit) {
      return truncate(clamp(unit > kZero ? value / unit : Floats{}, 0, bound_));
    };
    const auto stored = [&](const Fit& integers) {
      return Fit{units.d * integers.scale, units.dmin * integers.min};
    };
    const Floats scale = below(fitted.scale, units.d), min = below(fitted.min, units.dmin);
    Floats least = Floats{} + HUGE_VALF;
    for (const Fit& tried : {Fit{scale, min}, Fit{scale, min + 1.0f}, Fit{scale + 1.0f, min},
                             Fit{scale + 1.0f, min + 1.0f}}) {
      const Floats error = round_groups(part, stored(tried), top_, q);
      const FloatMask better = (tried.scale <= bound_) & (tried.min <= bound_) & (error < least);
      least = better ? error : least;
      chosen->scale = better ? tried.scale : chosen->scale;
      chosen->min = better ? tried.min : chosen->min;
    }
    return round_groups(part, stored(*chosen), top_, q);
  }

  const float top_, bound_;
  Groups<N> parts_[kParts];
  Fit fitted_[kParts];
  Units best_units_{};
  Fit best_[kParts];  // integers
  Floats best_q_[kParts][N] = {};
};

// Packs eight scales and eight minimums of six bits into twelve bytes: first those of groups 0-3,
// with the top two bits of groups 4-7 above them, then the low four bits of groups 4-7.
void put_scales_and_mins(const AffineGroups<32>& found, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    const int scale = found.scale(j + 4), min = found.min(j + 4);
    out[j] = static_cast<uint8_t>(found.scale(j) | (scale >> 4) << 6);
    out[j + 4] = static_cast<uint8_t>(found.min(j) | (min >> 4) << 6);
    out[j + 8] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
  }
}

}  // namespace

void search_q4_1(const float* x, const float* w, uint8_t* out) {
  const SingleScales found(x, w, 15);
  for (int block = 0; block < kLanes; ++block, out += 20) {
    found.put_scale_and_min(block, out);
    put_nibbles(out + 4, found.codes + 32 * block);
  }
}

void search_q5_1(const float* x, const float* w, uint8_t* out) {
  const SingleScales found(x, w, 31);
  for (int block = 0; block < kLanes; ++block, out += 24) {
    found.put_scale_and_min(block, out);
    put_fifth_bits(out + 4, found.codes + 32 * block);
    put_nibbles(out + 8, found.codes + 32 * block);
  }
}

void search_q2_k(const float* x, const float* w, uint8_t* out) {
  const AffineGroups<16> found(x, w, 3, 15);
  uint8_t codes[256];
  found.codes(codes);
  for (int g = 0; g < 16; ++g) out[g] = static_cast<uint8_t>(found.scale(g) | found.min(g) << 4);
  put_pairs_256(out + 16, codes);
  put_f16(out + 80, found.d());
  put_f16(out + 82, found.dmin());
}

void search_q4_k(const float* x, const float* w, uint8_t* out) {
  const AffineGroups<32> found(x, w, 15, 63);
  uint8_t codes[256];
  found.codes(codes);
  put_f16(out, found.d());
  put_f16(out + 2, found.dmin());
  put_scales_and_mins(found, out + 4);
  put_nibbles_256(out + 16, codes);
}

void search_q5_k(const float* x, const float* w, uint8_t* out) {
  const AffineGroups<32> found(x, w, 31, 63);
  uint8_t codes[256];
  found.codes(codes);
  put_f16(out, found.d());
  put_f16(out + 2, found.dmin());
  put_scales_and_mins(found, out + 4);
  put_bits_256(out + 16, codes, 4);
  put_nibbles_256(out + 48, codes);
}

}  // namespace gemtp
