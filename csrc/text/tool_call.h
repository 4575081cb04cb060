// The text of a call of a tool, as a model writes it, read into a name and a value.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "text/chat_value.h"

namespace gemtp {

struct ToolCall {
  std::string name;
  ChatValue arguments;  // an object; a string is written as it is
};

/// What stands for the quote token <|"|> in the text of a call; not a byte of UTF-8.
constexpr char kQuoteMark = '\xFF';

/// White space of the format.
constexpr bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
std::string_view without_blanks(std::string_view text);  // at both ends

/// The call that "call:name{...}" spells, with kQuoteMark for each quote token. Values are spelled
/// as the format has it, as JSON or as Python; a word without quotes is a string. False if the text
/// follows none of them.
bool parse_tool_call(std::string_view text, ToolCall* call);

/// Where a call ends with which the text begins; 0 where it begins with none.
size_t end_of_tool_call(std::string_view text);

}  // namespace gemtp
