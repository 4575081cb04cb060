// Gemma 4's chat format: messages to the text that the model continues.
//
// This is the format of the model's own Jinja template, as first released, byte for byte: for users
// of the C++ core, and for files without a template. A model file's own template goes first where
// there is something to render it with (python/gemtp_native/chat).
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "text/chat_value.h"
#include "text/tokenizer.h"
#include "text/tool_call.h"

namespace gemtp {

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
  // What was said before the calls; content comes behind the responses. With one, be it empty, a
  // message of the model goes on with the turn in which a tool has responded.
  std::optional<std::string> preface{};
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

/// Tools are declared as writable_declaration() has them. Error{kArgument} without messages, and
/// for what is no declaration.
RenderedChat render_chat(const ChatRequest& request);

}  // namespace gemtp
