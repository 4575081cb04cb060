#include "choose/option.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace gemtp {
namespace {

constexpr double kMostExact = 0x1p53;  // integers up to here are exact doubles and fit int64_t

template <class T>
std::string shortest(T value) {
  char text[40];
  for (int digits = 1; digits <= std::numeric_limits<T>::max_digits10; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, static_cast<double>(value));
    if (static_cast<T>(std::strtod(text, nullptr)) == value) break;
  }
  return text;
}

}  // namespace

std::string shown(float value) { return shortest(value); }
std::string shown(double value) { return shortest(value); }

void refuse(ErrorKind kind, const std::string& who, const std::string& value,
            const Option& option) {
  throw Error(kind, format("%s is %s but must be %s", who.c_str(), value.c_str(), option.domain));
}

void check_given(ErrorKind kind, const std::string& who, double given, const Option& option,
                 bool whole) {
  if (whole) {
    if (given == std::floor(given) && std::abs(given) <= kMostExact && option.contains(given))
      return;
    refuse(kind, who, shown(given), option);
  }
  const auto nearest = static_cast<float>(given);
  if (option.contains(static_cast<double>(nearest))) return;
  const bool rounded =
      (nearest == 0 && given != 0) || (!std::isfinite(nearest) && std::isfinite(given));
  refuse(kind, who, shown(given) + (rounded ? ", beyond single precision," : ""), option);
}

}  // namespace gemtp
