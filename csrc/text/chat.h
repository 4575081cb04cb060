// Gemma 4's chat format: renders messages as the text that the model continues.
//
// The output equals that of the model's own Jinja template, as first released, byte for byte. It
// serves users of the C++ core and files without a template. A model file's own template takes
// precedence wherever it can be rendered (python/gemtp_native/chat).
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gguf/reader.h"
#include "text/chat_value.h"
#include "text/tokenizer.h"
#include "text/tool_call.h"

namespace gemtp {

struct ToolResponse {
  std::string name = "unknown";
  ChatValue response;
};

struct ChatMessage {
  std::string role;  // "system", "developer", "user", "assistant" or "model", or any other name
  // Nothing, one text, or several texts, each of which is trimmed.
  std::variant<std::monostate, std::string, std::vector<std::string>> content;
  std::vector<ToolCall> tool_calls;
  std::vector<ToolResponse> tool_responses;  // to the calls of the same message
  // Text before the calls; `content` comes after the responses. If a preface is set, even an empty
  // one, a message of the model continues the turn in which a tool has responded.
  std::optional<std::string> preface{};
};

struct ChatRequest {
  std::vector<ChatMessage> messages;
  std::vector<ChatValue> tools;  // {"type": "function", "function": {"name", "description", ...}}
  bool thinking = false;
  bool generation_prompt = true;  // append the beginning of the model's turn
  std::string bos = "<bos>";
};

struct RenderedChat {
  std::string text;
  /// The parts of `text` that come from messages and tools. They never become control tokens,
  /// whatever they spell; see Tokenizer::encode_chat().
  std::vector<TextRange> literal;
};

/// Whether the vocabulary has the tokens of the chat format.
bool speaks_chat(const Tokenizer& tokenizer);

/// Whether the model was made to go on with texts and not to answer messages: its file has no chat
/// template, or says so itself (key gemtp.completes).
bool completes_texts(const GgufFile& file);

/// Renders a chat. Tool declarations are first converted by writable_declaration(). Throws
/// Error{kArgument} if there are no messages or a tool is not a valid declaration.
RenderedChat render_chat(const ChatRequest& request);

}  // namespace gemtp
