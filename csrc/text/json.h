// JSON text of a value.
#pragma once

#include <string>

#include "text/chat_value.h"

namespace gemtp {

/// Writes the value on one line, without blanks, with members in their order. Numbers that JSON
/// cannot express become null.
std::string to_json(const ChatValue& value);

}  // namespace gemtp
