// Gemma 4's chat format: messages to the text that the model continues.
//
// This is the format of the model's own Jinja template, as first released, byte for byte: for users
// of the C++ core, and for files without a template. A model file's own template goes first where
// there is something to render it with (python/gemtp_native/chat).
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "text/chat_value.h"
#include "text/tokenizer.h"

namespace gemtp {

struct ToolCall {
  std::string name;
  ChatValue arguments;  // an object; a string is written as it is
};

struct ToolResponse {
  std::string name = "unknown";
  ChatValue response;
};

struct ChatMessage {
  std::string role;  // "system", "developer", "user", "assistant" or "model", or a name of its own
  // Nothing, a text, or several, each of which is trimmed.
  std::variant<std::monostate, std::string, std::vector<std::string>> content;
  std::vector<ToolCall> tool_calls;
  std::vector<ToolResponse> tool_responses;  // to the calls of the same message
};

struct ChatRequest {
  std::vector<ChatMessage> messages;
  std::vector<ChatValue> tools;  // {"type": "function", "function": {"name", "description", ...}}
  bool thinking = false;
  bool generation_prompt = true;  // ends with the beginning of the model's turn
  std::string bos = "<bos>";
};

struct RenderedChat {
  std::string text;
  /// What messages and tools brought into it: never control tokens, whatever it spells. For
  /// Tokenizer::encode_chat().
  std::vector<TextRange> literal;
};

/// Whether the vocabulary has the tokens of the format.
bool speaks_chat(const Tokenizer& tokenizer);

/// Error{kArgument} without messages, and for tools declared in a way that the format has no words
/// for ("the type of ... must be a string").
RenderedChat render_chat(const ChatRequest& request);

}  // namespace gemtp
