// Reads the text of a tool call, as a model writes it, into a name and arguments.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "text/chat_value.h"

namespace gemtp {

struct ToolCall {
  std::string name;
  ChatValue arguments;  // an object; a string is rendered unchanged
};

/// Stands for the quote token <|"|> in the text of a call; this byte never occurs in UTF-8.
constexpr char kQuoteMark = '\xFF';

/// Whether c is white space of the format.
constexpr bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
std::string_view without_blanks(std::string_view text);  // trimmed at both ends

/// Parses "call:name{...}", with kQuoteMark for each quote token. Values may be written in the chat
/// format, as JSON or as Python; a word without quotes is a string. Returns false if the text
/// follows none of these. repeats: of a key that an object has several times the last one counts,
/// as in JSON and Python; otherwise the call cannot be read.
bool parse_tool_call(std::string_view text, ToolCall* call, bool repeats = false);

/// Returns the end of the call with which the text begins; 0 if it does not begin with a call.
size_t end_of_tool_call(std::string_view text);

}  // namespace gemtp
