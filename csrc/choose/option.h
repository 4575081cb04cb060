// A numeric option of a generation: its domain and its help text.
//
// for_each_option(params, fn) is the table of a struct's options: it calls fn(member, option) for
// each. SamplingParams (choose/) and GenerationParams (generate/) have one. Type and default are
// those of the member. The flags of the command line, the members of requests, the defaults and
// limits in Python and the reading of the C ABI's struct are generated from the table.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace gemtp {

constexpr double kMostWhole = std::numeric_limits<int32_t>::max();
constexpr double kMostReal = std::numeric_limits<float>::max();

struct Option {
  const char* name;
  double least, most;                            // ends of the domain
  const char* domain;                            // in words, to follow "must be"
  const char* help;                              // a line of help, without the default
  const char* key = nullptr;                     // GGUF key after "general.sampling."; null: none
  bool above_least = false, below_most = false;  // that end is excluded

  bool contains(double x) const {  // false for NaN
    return x >= least && x <= most && !(above_least && x == least) && !(below_most && x == most);
  }
};

/// The shortest decimal text that reads back as this number.
std::string shown(float value);
std::string shown(double value);
std::string shown(std::integral auto value) { return std::to_string(value); }

/// Throws Error{kind} saying what `who` must be, and the value as text.
[[noreturn]] void refuse(ErrorKind kind, const std::string& who, const std::string& value,
                         const Option& option);

/// Throws Error{kind} if `given` is outside the option's domain. whole: the option's member is an
/// integer; otherwise it is a float.
void check_given(ErrorKind kind, const std::string& who, double given, const Option& option,
                 bool whole);

/// Throws Error{kArgument} naming the first option outside its domain, and the domain.
template <class Params>
void check_options(const Params& params) {
  for_each_option(params, [](const auto& member, const Option& option) {
    if (!option.contains(static_cast<double>(member)))
      refuse(ErrorKind::kArgument, option.name, shown(member), option);
  });
}

/// Sets the option of that name, rounded to the member's type. Throws Error{kArgument}, with the
/// number as given, if it is outside the domain.
template <class Params>
void set_option(Params* params, std::string_view name, double given) {
  bool known = false;
  for_each_option(*params, [&](auto& member, const Option& option) {
    using Member = std::decay_t<decltype(member)>;
    if (name != option.name) return;
    check_given(ErrorKind::kArgument, option.name, given, option, std::is_integral_v<Member>);
    member = static_cast<Member>(given);
    known = true;
  });
  GEMTP_ASSERT(known);
}

}  // namespace gemtp
