// Lower case, for sorting keys regardless of case.
#pragma once

#include <string>
#include <string_view>

namespace gemtp {

/// Converts each UTF-8 character to lower case, independent of its context (a final sigma becomes
/// an ordinary sigma). Bytes that are not UTF-8 stay unchanged.
std::string lower_case(std::string_view text);

}  // namespace gemtp
