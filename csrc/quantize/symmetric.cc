#include "quantize/symmetric.h"

#include <cstring>

#include "quantize/fields.h"
#include "quantize/search.h"

namespace gemtp {
namespace {

// At most this many times a scale is refitted to its codes; they rarely change more than three
// times.
constexpr int kRefits = 6;

// Returns the scale, possibly negative, with the least error for a single group. For given codes q
// the best scale is sum(w x q) / sum(w q q), and the error that it leaves is sum(w x x) less sum(w
// x q)^2 / sum(w q q). The search is over the codes. It tries those of scales close to the one that
// maps the largest value to the outermost level, then refits the best of them.
template <int N, class Levels>
float fit_scale(const Group<N>& g, const Levels& levels) {
  float peak = 0;
  for (float v : g.x)
    if (std::fabs(v) > std::fabs(peak)) peak = v;
  if (peak == 0) return 0;
  double best = 0;  // error reduction of the best codes
  float scale = 0, q[N];
  const auto attempt = [&](float inverse) {
    g.round(inverse, 0, levels, q);
    const double xq = g.wxq(q), qq = g.wqq(q);
    if (!(qq > 0) || !(xq * xq > best * qq)) return false;
    best = xq * xq / qq;
    scale = static_cast<float>(xq / qq);
    return true;
  };
  const float step = 0.2f / levels.fineness();
  for (int k = -5; k <= 5; ++k) {
    const float factor = 1.0f + step * static_cast<float>(k);
    attempt(levels.low * factor / peak);
    if (levels.fineness() <= 8) attempt(levels.high * factor / peak);
  }
  for (int k = 0; k < kRefits && std::fabs(scale) > kZero && attempt(1.0f / scale); ++k) {
  }
  return scale;
}

// Rounds x to d * levels, with d as stored; returns the error.
template <int N, class Levels>
float round_group(const Group<N>& g, float d, const Levels& levels, float (&q)[N]) {
  g.round(std::fabs(d) > kZero ? 1.0f / d : 0.0f, 0, levels, q);
  return g.error(d, 0, q);
}

// Finds one scale for 32 values and writes it in f16; q receives their levels.
template <class Levels>
void search_single(const float* x, const float* w, const Levels& levels, uint8_t* out_d,
                   float (&q)[32]) {
  Group<32> g;
  g.set(x, w);
  round_group(g, put_f16(out_d, within_f16(fit_scale(g, levels))), levels, q);
}

void search_integers(const float* x, const float* w, int half, uint8_t* out_d, uint8_t* codes) {
  float q[32];
  const auto n = static_cast<float>(half);
  search_single(x, w, IntegerLevels{-n, n - 1}, out_d, q);
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(static_cast<int>(q[i]) + half);
}

// 256 values in groups of N. Each group has an integer scale from -bound to bound - 1; the block
// has an f16 factor d.
template <int N, class Levels>
class ScaledGroups {
 public:
  static constexpr int kGroups = 256 / N;

  ScaledGroups(const float* x, const float* w, const Levels& levels, int bound)
      : levels_(levels), bound_(bound) {
    float peak = 0;
    for (int g = 0; g < kGroups; ++g) {
      groups_[g].set(x + g * N, w + g * N);
      fitted_[g] = fit_scale(groups_[g], levels);
      if (std::fabs(fitted_[g]) > std::fabs(peak)) peak = fitted_[g];
    }
    // Scales are rounded to multiples of d; then d is refitted to the rounded scales and their
    // codes.
    best_error_ = HUGE_VAL;
    float d = covering_f16(peak / static_cast<float>(-bound));
    for (int k = 0; k < 4; ++k) {
      const float next = assign(d);
      if (next == d) break;
      d = next;
    }
  }

  float d() const { return best_d_; }
  int scale(int g) const { return best_scale_[g]; }
  const float* q() const { return best_q_; }

 private:
  // Finds the best scales for this d and keeps them if they are the best so far. Returns the d to
  // try next.
  float assign(float d) {
    float q[kGroups][N];
    int scale[kGroups];
    double error = 0, xq = 0, qq = 0;
    for (int g = 0; g < kGroups; ++g) {
      error += choose_scale(groups_[g], fitted_[g], d, &scale[g], q[g]);
      xq += static_cast<double>(scale[g]) * groups_[g].wxq(q[g]);
      qq += static_cast<double>(scale[g] * scale[g]) * groups_[g].wqq(q[g]);
    }
    if (error < best_error_) {
      best_error_ = error;
      best_d_ = d;
      std::memcpy(best_scale_, scale, sizeof scale);
      std::memcpy(best_q_, q, sizeof q);
    }
    return qq > 0 ? to_f16(static_cast<float>(xq / qq)) : d;
  }

  // Chooses the better of the two integers next to fitted / d; returns its error.
  float choose_scale(const Group<N>& g, float fitted, float d, int* scale, float (&q)[N]) const {
    const float ideal = std::fabs(d) > kZero ? fitted / d : 0.0f;
    const auto low = static_cast<float>(-bound_), high = static_cast<float>(bound_ - 1);
    const auto below = static_cast<int>(std::floor(std::clamp(ideal, low, high)));
    *scale = below;
    float error = round_group(g, d * static_cast<float>(below), levels_, q);
    if (below + 1 < bound_) {
      float other[N];
      const float e = round_group(g, d * static_cast<float>(below + 1), levels_, other);
      if (e < error) {
        error = e;
        *scale = below + 1;
        std::memcpy(q, other, sizeof other);
      }
    }
    return error;
  }

  const Levels levels_;
  const int bound_;
  Group<N> groups_[kGroups];
  float fitted_[kGroups];
  double best_error_;
  float best_d_ = 0;
  int best_scale_[kGroups] = {};
  float best_q_[256] = {};
};

}  // namespace

void search_q4_0(const float* x, const float* w, uint8_t* out) {
  uint8_t codes[32];
  search_integers(x, w, 8, out, codes);
  put_nibbles(out + 2, codes);
}

void search_q5_0(const float* x, const float* w, uint8_t* out) {
  uint8_t codes[32];
  search_integers(x, w, 16, out, codes);
  put_fifth_bits(out + 2, codes);
  put_nibbles(out + 6, codes);
}

void search_iq4_nl(const float* x, const float* w, uint8_t* out) {
  float q[32];
  uint8_t codes[32];
  search_single(x, w, Iq4Levels{}, out, q);
  for (int i = 0; i < 32; ++i) codes[i] = Iq4Levels::code(q[i]);
  put_nibbles(out + 2, codes);
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
    for (int i = 0; i < 32; ++i) codes[i] = Iq4Levels::code(found.q()[32 * g + i]);
    put_nibbles(out + 8 + 16 * g, codes);
  }
}

// Layout: bit 2 of the codes, their low two bits, scales + 32 in six bits, d.
void search_q3_k(const float* x, const float* w, uint8_t* out) {
  const ScaledGroups<16, IntegerLevels> found(x, w, {-4, 3}, 32);
  uint8_t codes[256];
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(static_cast<int>(found.q()[i]) + 4);
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
  for (int i = 0; i < 256; ++i) {
    codes[i] = static_cast<uint8_t>(static_cast<int>(found.q()[i]) + 32);
    high[i] = codes[i] >> 4;
  }
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
