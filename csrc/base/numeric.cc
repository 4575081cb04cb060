#include "base/numeric.h"

#include <bit>
#include <cfloat>
#include <cstdint>
#include <limits>

#include "base/error.h"

// x87 arithmetic would round differently. (16 affects only _Float16.)
static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16, "double must be evaluated as double");
static_assert(std::numeric_limits<double>::is_iec559);

namespace gemtp {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// ln 2 in three parts; the first has 12 trailing zero bits, so that n * kLn2A is exact for
// |n| <= 2^12.
constexpr double kLn2A = 0x1.62e42fefa3000p-1;
constexpr double kLn2B = 0x1.3de6af278ece6p-42;
constexpr double kInvLn2 = 0x1.71547652b82fep+0;

// pi/2 in four parts; the first three have 29 significant bits, so that n * part is exact for
// n < 2^24.
constexpr double kHalfPiA = 0x1.921fb54000000p+0;
constexpr double kHalfPiB = 0x1.10b4611000000p-30;
constexpr double kHalfPiC = 0x1.4c4c662000000p-59;
constexpr double kHalfPiD = 0x1.1701b839a2520p-88;
constexpr double kInvHalfPi = 0x1.45f306dc9c883p-1;

// Adding and subtracting this rounds |x| < 2^51 to the nearest integer.
constexpr double kRound = 0x1.8p52;

double round_to_integer(double x) { return (x + kRound) - kRound; }

/// 2^n for -1022 <= n <= 1023.
double power_of_two(int n) { return std::bit_cast<double>(static_cast<uint64_t>(n + 1023) << 52); }

struct DoubleDouble {
  double hi, lo;  // the value is hi + lo, |lo| <= ulp(hi) / 2
};

/// a + b exactly, for |a| >= |b| or a == 0.
DoubleDouble fast_two_sum(double a, double b) {
  const double hi = a + b;
  return {hi, b - (hi - a)};
}

/// a + b exactly (Knuth).
DoubleDouble two_sum(double a, double b) {
  const double hi = a + b;
  const double b_part = hi - a;
  return {hi, (a - (hi - b_part)) + (b - b_part)};
}

/// a * b exactly, for magnitudes below 2^996 (Dekker, Veltkamp).
DoubleDouble two_product(double a, double b) {
  constexpr double kSplit = 134217729.0;  // 2^27 + 1
  const double a_scaled = kSplit * a, b_scaled = kSplit * b;
  const double a_hi = a_scaled - (a_scaled - a), b_hi = b_scaled - (b_scaled - b);
  const double a_lo = a - a_hi, b_lo = b - b_hi;
  const double hi = a * b;
  return {hi, ((a_hi * b_hi - hi) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo};
}

/// (e^r - 1 - r) / r^2 for |r| <= ln2 / 2, interpolated at 11 Chebyshev nodes; error 2^-61 of e^r.
double exp_tail(double r) {
  double p = 2.0914686968086876e-09;
  p = p * r + 2.5105217004720745e-08;
  p = p * r + 2.75572736431103e-07;
  p = p * r + 2.7557255400206422e-06;
  p = p * r + 2.4801587325547743e-05;
  p = p * r + 0.00019841269874820627;
  p = p * r + 0.0013888888888883748;
  p = p * r + 0.008333333333326136;
  p = p * r + 0.04166666666666667;
  p = p * r + 0.1666666666666667;
  return p * r + 0.5;
}

/// e^(x + x_lo), |x_lo| at most a few ulp of x.
double exp_sum(double x, double x_lo) {
  if (!(x < 709.79)) return x >= 709.79 ? kInfinity : kNaN;
  if (x < -745.14) return 0.0;
  const double n = round_to_integer(x * kInvLn2);
  const double r_hi = x - n * kLn2A;  // exact
  const double r_lo = x_lo - n * kLn2B;
  const DoubleDouble r = two_sum(r_hi, r_lo);
  const double tail = r.hi * r.hi * exp_tail(r.hi) + r.lo;
  const double y = 1.0 + (r.hi + tail);
  // Two steps, because 2^n alone may leave the range; only the last one can round.
  const int whole = static_cast<int>(n), half = whole / 2;
  return y * power_of_two(half) * power_of_two(whole - half);
}

/// x = 2^exponent * mantissa, sqrt(1/2) <= mantissa < sqrt(2); x positive and finite.
struct Decomposed {
  double exponent, mantissa;
};

Decomposed decompose(double x) {
  int exponent = 0;
  if (x < DBL_MIN) {  // subnormal
    x *= 0x1p54;
    exponent = -54;
  }
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  exponent += static_cast<int>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0xfffffffffffffu) | 0x3ff0000000000000u);
  if (mantissa >= 0x1.6a09e667f3bcdp+0) {
    mantissa *= 0.5;
    ++exponent;
  }
  return {static_cast<double>(exponent), mantissa};
}

/// (2 atanh(s) - 2s) / s^3 with z = s^2, |s| <= (sqrt2 - 1) / (sqrt2 + 1), interpolated at 8
/// Chebyshev nodes; error 2^-60 of 2 atanh(s).
double atanh_tail(double z) {
  double p = 0.13086907887965027;
  p = p * z + 0.13268746195596595;
  p = p * z + 0.15386240708969665;
  p = p * z + 0.18181795621632782;
  p = p * z + 0.22222222391887064;
  p = p * z + 0.2857142857080285;
  p = p * z + 0.4000000000000088;
  return p * z + 0.6666666666666666;
}

/// log x to about 2^-58 of its size, for pow; x positive and finite.
DoubleDouble log_double_double(double x) {
  const Decomposed d = decompose(x);
  // log mantissa = 2 atanh(s), s = f / (2 + f), with s carried to twice the precision.
  const double f = d.mantissa - 1.0;  // exact
  const DoubleDouble denominator = fast_two_sum(2.0, f);
  const double s = f / denominator.hi;
  const DoubleDouble product = two_product(s, denominator.hi);
  const double s_lo = ((f - product.hi) - product.lo - s * denominator.lo) / denominator.hi;
  const double z = s * s;
  const double series = s * z * atanh_tail(z);
  const DoubleDouble exponent_part = two_sum(d.exponent * kLn2A, 2.0 * s);
  const double low = (d.exponent * kLn2B + 2.0 * s_lo) + exponent_part.lo;
  const DoubleDouble sum = two_sum(exponent_part.hi, series);
  return two_sum(sum.hi, sum.lo + low);
}

}  // namespace

double portable_exp(double x) { return exp_sum(x, 0.0); }

void portable_exp(double* x, int64_t n) {
  bool moderate = true;
  for (int64_t i = 0; i < n; ++i) moderate &= x[i] >= -700.0 && x[i] <= 700.0;
  if (!moderate) {
    for (int64_t i = 0; i < n; ++i) x[i] = portable_exp(x[i]);
    return;
  }
  // exp_sum without branches, for the compiler to vectorize: where nothing can leave the range of
  // normal numbers, scaling by 2^n is exact in one step too.
  for (int64_t i = 0; i < n; ++i) {
    const double shifted = x[i] * kInvLn2 + kRound;
    const double whole = shifted - kRound;
    const double r_hi = x[i] - whole * kLn2A;
    const double r_lo = 0.0 - whole * kLn2B;
    const DoubleDouble r = two_sum(r_hi, r_lo);
    const double tail = r.hi * r.hi * exp_tail(r.hi) + r.lo;
    const double y = 1.0 + (r.hi + tail);
    // The low bits of `shifted` are n.
    x[i] = y * std::bit_cast<double>((std::bit_cast<uint64_t>(shifted) + 1023) << 52);
  }
}

double portable_log(double x) {
  if (!(x > 0.0)) return x == 0.0 ? -kInfinity : kNaN;
  if (x == kInfinity) return x;
  const Decomposed d = decompose(x);
  // With s = f / (2 + f): log(1 + f) = 2 atanh(s) = 2s + tail and 2s = f - f s, written so that the
  // leading f is exact.
  const double f = d.mantissa - 1.0;  // exact
  const double s = f / (2.0 + f);
  const double z = s * s;
  const double half_square = 0.5 * f * f;
  // f - f s = f - half_square + half_square s.
  const double correction = s * (half_square + z * atanh_tail(z));
  const double low = correction + d.exponent * kLn2B;
  return d.exponent * kLn2A - ((half_square - low) - f);
}

void portable_sincos(double x, double* sin, double* cos) {
  GEMTP_ASSERT(x >= -0x1p24 && x <= 0x1p24);
  const double n = round_to_integer(x * kInvHalfPi);
  const double r_hi = x - n * kHalfPiA;  // exact: both are within a factor of two
  const DoubleDouble r_b = two_sum(r_hi, -(n * kHalfPiB));
  const DoubleDouble r_c = two_sum(r_b.hi, -(n * kHalfPiC));
  const DoubleDouble r = two_sum(r_c.hi, (r_b.lo + r_c.lo) - n * kHalfPiD);
  const double z = r.hi * r.hi;

  // sin r = r + r^3 S(z), cos r = 1 - z/2 + z^2 C(z), |r| <= pi/4; interpolated at Chebyshev nodes,
  // errors 2^-57 and 2^-60. r.lo enters through the first derivative.
  double s = -7.586685070091267e-13;
  s = s * z + 1.605853141458901e-10;
  s = s * z + -2.5052106231157904e-08;
  s = s * z + 2.7557319219335453e-06;
  s = s * z + -0.0001984126984126506;
  s = s * z + 0.008333333333333331;
  s = s * z + -0.16666666666666666;
  const double sin_r = r.hi + (r.hi * z * s + r.lo * (1.0 - 0.5 * z));

  double c = -1.1382614868556325e-11;
  c = c * z + 2.0876146024689747e-09;
  c = c * z + -2.7557317270560326e-07;
  c = c * z + 2.4801587298763433e-05;
  c = c * z + -0.0013888888888887395;
  c = c * z + 0.041666666666666664;
  const double head = 1.0 - 0.5 * z;
  const double head_error = (1.0 - head) - 0.5 * z;
  const double cos_r = head + (head_error + (z * z * c - r.hi * r.lo));

  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      *sin = sin_r, *cos = cos_r;
      break;
    case 1:
      *sin = cos_r, *cos = -sin_r;
      break;
    case 2:
      *sin = -sin_r, *cos = -cos_r;
      break;
    default:
      *sin = -cos_r, *cos = sin_r;
      break;
  }
}

double portable_pow(double base, double exponent) {
  if (!(base > 0.0 && base < kInfinity) || exponent != exponent) return kNaN;
  const DoubleDouble log_base = log_double_double(base);
  if (log_base.hi == 0.0 || exponent == 0.0) return 1.0;
  const double estimate = exponent * log_base.hi;
  if (estimate > 710.0) return kInfinity;
  if (estimate < -746.0) return 0.0;
  const DoubleDouble product = two_product(exponent, log_base.hi);
  return exp_sum(product.hi, product.lo + exponent * log_base.lo);
}

}  // namespace gemtp
