// Messages, tool declarations, calls and responses as others write them, rendered and tokenized: no
// control token comes from what they spell.
#include <algorithm>
#include <cstdio>
#include <unordered_set>

#include "any_value.h"
#include "fuzz.h"
#include "text/chat.h"
#include "text/json.h"
#include "text/tool_schema.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

ChatValue any_tool(Data& data) {
  if (data.ConsumeIntegralInRange(0, 7) == 0) return any_value(data);
  ChatValue::Object function;
  function.emplace_back(
      "name", data.ConsumeIntegralInRange(0, 7) ? ChatValue(chat_text(data, 12)) : any_value(data));
  if (data.ConsumeBool()) function.emplace_back("description", ChatValue(chat_text(data, 40)));
  if (data.ConsumeBool()) function.emplace_back("parameters", any_schema(data));
  if (data.ConsumeBool()) function.emplace_back("response", any_schema(data));
  return ChatValue(ChatValue::Object{{"type", ChatValue("function")},
                                     {"function", ChatValue(std::move(function))}});
}

ChatMessage any_message(Data& data) {
  ChatMessage message;
  message.role = data.ConsumeBool()
                     ? data.PickValueInArray<const char*>(
                           {"system", "user", "assistant", "model", "developer", "tool"})
                     : chat_text(data, 12);
  switch (data.ConsumeIntegralInRange(0, 2)) {
    case 0:
      message.content = chat_text(data, 60);
      break;
    case 1:
      message.content = std::vector<std::string>{chat_text(data, 30), chat_text(data, 30)};
      break;
  }
  for (int n = data.ConsumeIntegralInRange(0, 2); n > 0; --n)
    message.tool_calls.push_back({chat_text(data, 12), any_value(data)});
  for (int n = data.ConsumeIntegralInRange(0, 2); n > 0; --n)
    message.tool_responses.push_back({chat_text(data, 12), any_value(data)});
  if (data.ConsumeBool()) message.preface = chat_text(data, 20);
  return message;
}

// Walks the tokens of the rendered text: where one is a control token, its text touches no range of
// a stranger's.
void check_tokens(const RenderedChat& chat) {
  const Tokenizer& tokenizer = shipped_tokenizer();
  static const std::unordered_set<int32_t> controls = [&] {
    std::unordered_set<int32_t> ids;
    for (const std::string& text : tokenizer.control_tokens()) ids.insert(tokenizer.find(text));
    return ids;
  }();
  size_t at = 0;
  for (const int32_t id : tokenizer.encode_chat(chat.text, chat.literal, false)) {
    const bool control = controls.contains(id);
    const size_t length =
        control ? tokenizer.token_text(id).size() : tokenizer.token_bytes(id, true).size();
    // A token with U+2581 has three bytes in the text if that was written there, one for a space.
    FUZZ_CHECK(at < chat.text.size());
    if (control) {
      FUZZ_CHECK(chat.text.compare(at, length, tokenizer.token_text(id)) == 0);
      for (const TextRange& range : chat.literal)
        FUZZ_CHECK(at >= range.end || at + length <= range.begin);
    }
    at += length;
  }
  FUZZ_CHECK(at == chat.text.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Data data(bytes, size);
  ChatRequest request;
  request.thinking = data.ConsumeBool();
  request.generation_prompt = data.ConsumeBool();
  for (int n = data.ConsumeIntegralInRange(0, 2); n > 0; --n)
    request.tools.push_back(any_tool(data));
  for (int n = data.ConsumeIntegralInRange(0, 3); n > 0; --n)
    request.messages.push_back(any_message(data));
  refused(
      [&] {
        const RenderedChat chat = render_chat(request);
        check_text(chat.text);
        size_t end = 0;
        for (const TextRange& range : chat.literal) {
          FUZZ_CHECK(range.begin >= end && range.begin <= range.end);
          end = range.end;
        }
        FUZZ_CHECK(end <= chat.text.size());
        FUZZ_CHECK(render_chat(request).text == chat.text);
        if (chat.text.find("\xE2\x96\x81") == std::string::npos) check_tokens(chat);
      },
      {ErrorKind::kArgument});
  for (const ChatValue& tool : request.tools) {
    refused(
        [&] {
          const ChatValue once = writable_declaration(tool);
          const std::string text = to_json(once), again = to_json(writable_declaration(once));
          if (again != text) std::fprintf(stderr, "%s\n%s\n", text.c_str(), again.c_str());
          FUZZ_CHECK(again == text);  // what can be rendered stays unchanged
        },
        {ErrorKind::kArgument});
  }
  return 0;
}
