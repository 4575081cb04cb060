// Converts bytes to valid UTF-8, at once or piece by piece. (find_invalid_utf8 is in
// text/tokenizer.h.)
#pragma once

#include <string>
#include <string_view>

namespace gemtp {

/// Moves all complete text from the front of `pending` to the end of `out`. Each maximal subpart of
/// invalid UTF-8 becomes one U+FFFD (Unicode standard, section 3.9). An unfinished character, at
/// most 3 bytes, stays in `pending`, unless `last` is set: then it becomes U+FFFD too.
void drain_utf8(std::string* pending, std::string* out, bool last);

/// Returns all of `bytes` as valid UTF-8, by the same rule.
std::string to_valid_utf8(std::string_view bytes);

}  // namespace gemtp
