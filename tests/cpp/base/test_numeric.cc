#include "base/numeric.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace {

using namespace gemtp;

constexpr double kInf = std::numeric_limits<double>::infinity();

/// Uniform doubles without <random>, whose distributions differ between libraries.
struct Random {
  uint64_t state;
  double operator()(double low, double high) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * (static_cast<double>(state >> 11) * 0x1p-53);
  }
};

/// The error of `value` in units in the last place of `exact`.
double ulp_error(double value, long double exact) {
  int exponent;
  std::frexp(exact, &exponent);
  const int lowest = std::numeric_limits<double>::min_exponent;
  if (exponent < lowest) exponent = lowest;
  const long double ulp = std::ldexp(1.0L, exponent - 53);
  return static_cast<double>(std::fabs(value - exact) / ulp);
}

// Where long double is double, libm's own half ulp adds to ours.
const double kReference = std::numeric_limits<long double>::digits > 53 ? 0.0 : 1.0;

}  // namespace

TEST_CASE("portable_exp is within one ulp") {
  Random random{1};
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const double x = i & 1 ? random(-708, 709.7) : random(-1, 1);
    worst = std::fmax(worst, ulp_error(portable_exp(x), std::exp(static_cast<long double>(x))));
  }
  CHECK(worst <= 1.0 + kReference);
  worst = 0;
  for (int i = 0; i < 20000; ++i) {
    const double x = random(-745, -708.3);  // subnormal results
    worst = std::fmax(worst, ulp_error(portable_exp(x), std::exp(static_cast<long double>(x))));
  }
  CHECK(worst <= 2.0 + kReference);
}

TEST_CASE("portable_exp at the edges") {
  CHECK(portable_exp(0.0) == 1.0);
  CHECK(portable_exp(-0.0) == 1.0);
  CHECK(portable_exp(kInf) == kInf);
  CHECK(portable_exp(-kInf) == 0.0);
  CHECK(portable_exp(709.782712893384) > 1.797e308);
  CHECK(portable_exp(709.782712893384) < kInf);
  CHECK(portable_exp(709.7827128933841) == kInf);
  CHECK(portable_exp(710.0) == kInf);
  CHECK(portable_exp(-745.13) == 0x1p-1074);
  CHECK(portable_exp(-746.0) == 0.0);
  CHECK(std::isnan(portable_exp(std::nan(""))));
}

TEST_CASE("portable_exp of an array equals portable_exp of each element") {
  Random random{6};
  for (const double range : {1.0, 40.0, 699.9, 800.0}) {
    double x[257], y[257];
    for (int i = 0; i < 257; ++i) x[i] = y[i] = random(-range, range);
    y[7] = x[7] = -0.0;
    portable_exp(y, 257);
    for (int i = 0; i < 257; ++i) REQUIRE(y[i] == portable_exp(x[i]));
  }
  double edges[] = {700.0, -700.0, kInf, -kInf, 0.0};
  portable_exp(edges, 2);
  CHECK(edges[0] == portable_exp(700.0));
  CHECK(edges[1] == portable_exp(-700.0));
  portable_exp(edges + 2, 3);
  CHECK(edges[2] == kInf);
  CHECK(edges[3] == 0.0);
  CHECK(edges[4] == 1.0);
}

TEST_CASE("portable_log is within one ulp, also next to 1") {
  Random random{2};
  double worst = 0;
  for (int i = 0; i < 300000; ++i) {
    double x;
    switch (i % 3) {
      case 0:
        x = random(0, 1);
        break;
      case 1:
        x = 1.0 + random(-1, 1) * std::ldexp(1.0, -(i / 3) % 52);
        break;
      default:
        x = std::ldexp(random(1, 2), i % 2040 - 1021);
        break;
    }
    if (!(x > 0) || x == 1.0) continue;
    worst = std::fmax(worst, ulp_error(portable_log(x), std::log(static_cast<long double>(x))));
  }
  CHECK(worst <= 1.0 + kReference);
}

TEST_CASE("portable_log at the edges") {
  CHECK(portable_log(1.0) == 0.0);
  CHECK(portable_log(0.0) == -kInf);
  CHECK(portable_log(-0.0) == -kInf);
  CHECK(portable_log(kInf) == kInf);
  CHECK(std::isnan(portable_log(-1.0)));
  CHECK(std::isnan(portable_log(std::nan(""))));
  CHECK(portable_log(1.0 - 0x1p-53) == doctest::Approx(-0x1p-53).epsilon(1e-15));
  CHECK(ulp_error(portable_log(0x1p-1074), std::log(0x1p-1074L)) <= 1.0 + kReference);
}

TEST_CASE("portable_sincos is within one ulp up to 2^24") {
  Random random{3};
  double worst = 0, worst_absolute = 0;
  for (int i = 0; i < 300000; ++i) {
    double x;
    switch (i % 3) {
      case 0:
        x = random(0, 0x1p24);
        break;
      case 1:
        x = random(-8, 8);
        break;
      // As near to a multiple of pi/2 as a double gets: the hard case of the reduction.
      default:
        x = static_cast<double>((i * 37 + 1) * 1.570796326794896619231L);
        break;
    }
    if (std::fabs(x) > 0x1p24) continue;
    double sin, cos;
    portable_sincos(x, &sin, &cos);
    const long double exact_sin = std::sin(static_cast<long double>(x));
    const long double exact_cos = std::cos(static_cast<long double>(x));
    worst = std::fmax(worst, ulp_error(sin, exact_sin));
    worst = std::fmax(worst, ulp_error(cos, exact_cos));
    const double absolute =
        static_cast<double>(std::fmax(std::fabs(sin - exact_sin), std::fabs(cos - exact_cos)));
    worst_absolute = std::fmax(worst_absolute, absolute);
  }
  CHECK(worst <= 1.0 + kReference);
  CHECK(worst_absolute <= 1.2e-16 * (1.0 + kReference));
}

TEST_CASE("portable_sincos at the edges") {
  double sin, cos;
  portable_sincos(0.0, &sin, &cos);
  CHECK(sin == 0.0);
  CHECK(cos == 1.0);
  portable_sincos(0x1p24, &sin, &cos);
  CHECK(sin == doctest::Approx(std::sin(0x1p24)).epsilon(1e-15));
  CHECK_THROWS_AS(portable_sincos(0x1.0000001p24, &sin, &cos), Error);
  CHECK_THROWS_AS(portable_sincos(std::nan(""), &sin, &cos), Error);
}

TEST_CASE("portable_pow is within one ulp") {
  Random random{4};
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const double base = i & 1 ? std::ldexp(random(1, 2), i % 60 - 30) : random(0.5, 2);
    const double exponent = random(-25, 25);
    const long double exact =
        std::pow(static_cast<long double>(base), static_cast<long double>(exponent));
    if (exact < 1e-300L || exact > 1e300L) continue;
    worst = std::fmax(worst, ulp_error(portable_pow(base, exponent), exact));
  }
  CHECK(worst <= 1.0 + kReference);
}

TEST_CASE("portable_pow gives the RoPE frequencies of both Gemma tables") {
  for (const double base : {1e4, 1e6}) {
    for (const int dim : {256, 512}) {
      for (int i = 0; i < dim / 2; ++i) {
        const double exponent = -2.0 * i / dim;
        const long double exact =
            std::pow(static_cast<long double>(base), static_cast<long double>(exponent));
        REQUIRE(ulp_error(portable_pow(base, exponent), exact) <= 1.0 + kReference);
      }
    }
  }
}

TEST_CASE("portable_pow at the edges") {
  CHECK(portable_pow(1.0, 1e308) == 1.0);
  CHECK(portable_pow(1e6, 0.0) == 1.0);
  CHECK(portable_pow(2.0, 10.0) == 1024.0);
  CHECK(portable_pow(2.0, -1074.0) == 0x1p-1074);
  CHECK(portable_pow(10.0, 400.0) == kInf);
  CHECK(portable_pow(10.0, -400.0) == 0.0);
  CHECK(portable_pow(10.0, kInf) == kInf);
  CHECK(portable_pow(10.0, -kInf) == 0.0);
  CHECK(std::isnan(portable_pow(0.0, 1.0)));
  CHECK(std::isnan(portable_pow(-2.0, 2.0)));
  CHECK(std::isnan(portable_pow(2.0, std::nan(""))));
}

// The promise is the same bits everywhere, so a few results are pinned to the bit.
TEST_CASE("portable functions give the same bits on every machine") {
  uint64_t hash = 0;
  const auto mix = [&](double value) {
    uint64_t bits;
    static_assert(sizeof bits == sizeof value);
    std::memcpy(&bits, &value, sizeof bits);
    hash = (hash ^ bits) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  };
  Random random{5};
  for (int i = 0; i < 20000; ++i) {
    double sin, cos;
    portable_sincos(random(0, 0x1p24), &sin, &cos);
    mix(sin);
    mix(cos);
    mix(portable_exp(random(-700, 700)));
    mix(portable_log(random(0, 100)));
    const double base = random(0, 100);
    mix(portable_pow(base, random(-10, 10)));
  }
  CHECK(hash == 1325697145605355671u);
}
