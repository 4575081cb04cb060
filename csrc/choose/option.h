// An option of a generation that is one number: what it may be, and what users are told of it.
//
// for_each_option(params, fn) is the table of a struct's options: it calls fn(member, option) for
// each. SamplingParams (choose/) and GenerationParams (generate/) have one. Type and default are
// the member's. The flags of the command line, the members of requests, defaults and limits in
// Python and the reading of the C ABI's struct are made of it.
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
  double least, most;                            // of its domain
  const char* domain;                            // in words, behind "must be"
  const char* help;                              // a line of the command's, without the default
  const char* key = nullptr;                     // below general.sampling. in GGUF; null: none
  bool above_least = false, below_most = false;  // the domain is without that end

  bool contains(double x) const {  // NaN: no
    return x >= least && x <= most && !(above_least && x == least) && !(below_most && x == most);
  }
};

/// The shortest decimal number that is read as this one.
std::string shown(float value);
std::string shown(double value);
std::string shown(std::integral auto value) { return std::to_string(value); }

/// Error{kind} saying what `who` must be, with the value as it is shown.
[[noreturn]] void refuse(ErrorKind kind, const std::string& who, const std::string& value,
                         const Option& option);

/// Error{kind} for a number, as it was given, that the option does not take. whole: its member is
/// an integer; otherwise it is a float.
void check_given(ErrorKind kind, const std::string& who, double given, const Option& option,
                 bool whole);

/// Error{kArgument} naming the first option outside its domain, and the domain.
template <class Params>
void check_options(const Params& params) {
  for_each_option(params, [](const auto& member, const Option& option) {
    if (!option.contains(static_cast<double>(member)))
      refuse(ErrorKind::kArgument, option.name, shown(member), option);
  });
}

/// Sets the option of that name to a number, as exactly as it is kept. Error{kArgument}, with the
/// number as it was given, for one outside its domain.
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
