// Lower case, for an order of keys that ignores it.
#pragma once

#include <string>
#include <string_view>

namespace gemtp {

/// Each character of UTF-8 in lower case, wherever it stands (a final sigma is a sigma). Bytes that
/// are not UTF-8 stay as they are.
std::string lower_case(std::string_view text);

}  // namespace gemtp
