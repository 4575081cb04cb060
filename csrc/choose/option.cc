#include "choose/option.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace gemtp {
namespace {

constexpr double kMostExact = 0x1p53;  // integers up to here are exact doubles and fit int64_t

template <class T>
std::string shortest(T value) {
  const auto wide = static_cast<double>(value);
  const auto with_digits = [wide](int digits) {
    char text[40];
    std::snprintf(text, sizeof text, "%.*g", digits, wide);
    return std::string(text);
  };
  int digits = 1;
  while (digits < std::numeric_limits<T>::max_digits10 &&
         static_cast<T>(std::strtod(with_digits(digits).c_str(), nullptr)) != value)
    ++digits;
  // 20 has one significant digit, but is not to be shown as 2e+01.
  const double size = std::abs(wide);
  const int whole = size >= 1 && size < 1e15 ? static_cast<int>(std::log10(size)) + 1 : 0;
  return with_digits(std::max(digits, whole));
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
