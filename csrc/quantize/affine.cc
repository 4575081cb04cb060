#include "quantize/affine.h"

#include <cstring>

#include "quantize/fields.h"
#include "quantize/search.h"

namespace gemtp {
namespace {

constexpr int kRefits = 6;

struct Fit {
  float scale = 0, min = 0;  // x = scale * code - min
};

// Returns the scale and minimum with the least error for a single group; with `signed_min` the
// minimum may be negative. For given codes q they solve the normal equations of least squares; the
// search is over the codes, as in fit_scale().
template <int N>
Fit fit_affine(const Group<N>& g, int top, bool signed_min) {
  float low = g.x[0], high = g.x[0];
  for (float v : g.x) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  if (!signed_min) low = std::min(low, 0.0f);
  if (!(high - low > kZero)) return {0, -low};
  const IntegerLevels levels{0, static_cast<float>(top)};
  const double sum_w = total(g.w), sum_x = total(g.wx);
  double best = -HUGE_VAL;  // error reduction of the best codes
  Fit fit;
  float q[N];
  const auto attempt = [&](float inverse, float offset) {
    g.round(inverse, offset, levels, q);
    const double q1 = g.wq(q), q2 = g.wqq(q), xq = g.wxq(q);
    const double det = sum_w * q2 - q1 * q1;
    double scale = 0, min = 0;
    if (det > 1e-6 * sum_w * q2) {
      scale = (sum_w * xq - sum_x * q1) / det;
      min = (q1 * xq - q2 * sum_x) / det;
    }
    if (scale == 0 || (min < 0 && !signed_min)) {  // also if all codes are equal
      min = 0;
      scale = xq / q2;
    }
    const double gain = scale * xq - min * sum_x;
    if (!(scale > 0) || !(gain > best)) return false;
    best = gain;
    fit = {static_cast<float>(scale), static_cast<float>(min)};
    return true;
  };
  for (int k = -5; k <= 5; ++k)
    attempt((static_cast<float>(top) + 0.2f * static_cast<float>(k)) / (high - low), -low);
  for (int k = 0; k < kRefits && fit.scale > kZero && attempt(1.0f / fit.scale, fit.min); ++k) {
  }
  return fit;
}

// Rounds x to scale * code - min, with scale and min as stored; returns the error.
template <int N>
float round_group(const Group<N>& g, const Fit& fit, int top, float (&q)[N]) {
  const float inverse = fit.scale > kZero ? 1.0f / fit.scale : 0.0f;
  g.round(inverse, fit.min, IntegerLevels{0, static_cast<float>(top)}, q);
  return g.error(fit.scale, fit.min, q);
}

// Finds the scale and the minimum of 32 values and their codes. Scale and negated minimum are
// written in f16 at out and out + 2.
void search_single(const float* x, const float* w, int top, uint8_t* out, uint8_t* codes) {
  Group<32> g;
  g.set(x, w);
  Fit fit = fit_affine(g, top, /*signed_min=*/true);
  fit.scale = put_f16(out, within_f16(fit.scale));
  fit.min = -put_f16(out + 2, within_f16(-fit.min));
  float q[32];
  round_group(g, fit, top, q);
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(q[i]);
}

// 256 values in groups of N. Each group has an integer scale and minimum from 0 to bound; the block
// has f16 factors d and dmin. Codes range from 0 to top.
template <int N>
class AffineGroups {
 public:
  static constexpr int kGroups = 256 / N;

  AffineGroups(const float* x, const float* w, int top, int bound) : top_(top), bound_(bound) {
    Fit largest;
    for (int g = 0; g < kGroups; ++g) {
      groups_[g].set(x + g * N, w + g * N);
      fitted_[g] = fit_affine(groups_[g], top, /*signed_min=*/false);
      largest.scale = std::max(largest.scale, fitted_[g].scale);
      largest.min = std::max(largest.min, fitted_[g].min);
    }
    // Scales and minimums are rounded to multiples of d and dmin; then d and dmin are refitted to
    // the rounded integers and their codes.
    Fit unit{covering_f16(largest.scale / static_cast<float>(bound)),
             covering_f16(largest.min / static_cast<float>(bound))};
    best_error_ = HUGE_VAL;
    for (int k = 0; k < 4; ++k) {
      const Fit next = assign(unit);
      if (next.scale == unit.scale && next.min == unit.min) break;
      unit = next;
    }
  }

  float d() const { return best_unit_.scale; }
  float dmin() const { return best_unit_.min; }
  int scale(int g) const { return best_[g].scale; }
  int min(int g) const { return best_[g].min; }
  void codes(uint8_t* out) const {
    for (int i = 0; i < 256; ++i) out[i] = static_cast<uint8_t>(best_q_[i]);
  }

 private:
  struct Choice {
    int scale, min;
  };

  // Finds the best integers for these units and keeps them if they are the best so far. Returns the
  // units to try next: with a = scale * q and c = min of every value, the normal equations
  //   d sum(w a a) - dmin sum(w a c) = sum(w x a),  d sum(w a c) - dmin sum(w c c) = sum(w x c).
  Fit assign(const Fit& unit) {
    float q[kGroups][N];
    Choice chosen[kGroups];
    double error = 0, aa = 0, ac = 0, cc = 0, xa = 0, xc = 0;
    for (int g = 0; g < kGroups; ++g) {
      const Group<N>& group = groups_[g];
      error += choose(group, fitted_[g], unit, &chosen[g], q[g]);
      const double s = chosen[g].scale, m = chosen[g].min;
      aa += s * s * group.wqq(q[g]);
      ac += s * m * group.wq(q[g]);
      cc += m * m * total(group.w);
      xa += s * group.wxq(q[g]);
      xc += m * total(group.wx);
    }
    if (error < best_error_) {
      best_error_ = error;
      best_unit_ = unit;
      std::memcpy(best_, chosen, sizeof chosen);
      std::memcpy(best_q_, q, sizeof q);
    }
    const double det = aa * cc - ac * ac;
    double d = unit.scale, dmin = unit.min;
    if (det > 1e-6 * aa * cc) {
      d = (xa * cc - xc * ac) / det;
      dmin = (xa * ac - xc * aa) / det;
    } else if (aa > 0) {
      d = (xa + dmin * ac) / aa;
    }
    if (!(d > 0) || !(dmin >= 0)) return unit;
    return {to_f16(static_cast<float>(d)), to_f16(static_cast<float>(dmin))};
  }

  // Chooses the best of the integers next to fitted / unit; returns its error.
  float choose(const Group<N>& g, const Fit& fitted, const Fit& unit, Choice* chosen,
               float (&q)[N]) const {
    const auto below = [&](float value, float step) {
      const float ideal = step > kZero ? value / step : 0.0f;
      return static_cast<int>(std::clamp(ideal, 0.0f, static_cast<float>(bound_)));
    };
    const int scale = below(fitted.scale, unit.scale), min = below(fitted.min, unit.min);
    float least = HUGE_VALF, tried[N];
    for (int s = scale; s <= std::min(scale + 1, bound_); ++s)
      for (int m = min; m <= std::min(min + 1, bound_); ++m) {
        const Fit fit{unit.scale * static_cast<float>(s), unit.min * static_cast<float>(m)};
        const float error = round_group(g, fit, top_, tried);
        if (!(error < least)) continue;
        least = error;
        *chosen = {s, m};
        std::memcpy(q, tried, sizeof tried);
      }
    return least;
  }

  const int top_, bound_;
  Group<N> groups_[kGroups];
  Fit fitted_[kGroups];
  double best_error_;
  Fit best_unit_;
  Choice best_[kGroups] = {};
  float best_q_[256] = {};
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
  uint8_t codes[32];
  search_single(x, w, 15, out, codes);
  put_nibbles(out + 4, codes);
}

void search_q5_1(const float* x, const float* w, uint8_t* out) {
  uint8_t codes[32];
  search_single(x, w, 31, out, codes);
  put_fifth_bits(out + 4, codes);
  put_nibbles(out + 8, codes);
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
