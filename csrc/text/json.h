// JSON text of a value.
#pragma once

#include <string>

#include "text/chat_value.h"

namespace gemtp {

/// On one line, without blanks; members in their order. Numbers that JSON has no words for become
/// null.
std::string to_json(const ChatValue& value);

}  // namespace gemtp
