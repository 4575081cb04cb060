// Values, schemas and texts of chats that an input makes up.
#pragma once

#include <string>
#include <unordered_set>

#include "fuzz.h"
#include "text/chat_value.h"

namespace gemtp::fuzzing {

/// A text in which control tokens are spelled.
inline std::string chat_text(Data& data, size_t longest) {
  static const std::vector<std::string> kWords = {
      "<bos>",        "<|turn>", "<turn|>", "<|\"|>", "<tool|>",          "<|tool_call>",
      "<tool_call|>", "\n",      "<|chan",  "nel>",   "<channel|>",       " ",
      "<|channel>",   "\"",      "{",       "}",      "<|tool_response>", "<|tool>",
      "<|think|>"};
  return any_text(data, longest, kWords);
}

/// A value of up to 4 levels; the members of its objects have different names.
inline ChatValue any_value(Data& data, int level = 0) {
  switch (data.ConsumeIntegralInRange(0, level < 4 ? 7 : 5)) {
    case 0:
      return ChatValue();
    case 1:
      return ChatValue(data.ConsumeBool());
    case 2:
      return ChatValue(data.ConsumeIntegral<int64_t>());
    case 3:
      return ChatValue(any_double(data));
    case 4:
      return ChatValue(BigInteger{"-123456789012345678901234567890"});
    case 5:
      return ChatValue(chat_text(data, 20));
    case 6: {
      ChatValue::Array array;
      for (int n = data.ConsumeIntegralInRange(0, 3); n > 0; --n)
        array.push_back(any_value(data, level + 1));
      return ChatValue(std::move(array));
    }
    default: {
      ChatValue::Object object;
      std::unordered_set<std::string> names;
      for (int n = data.ConsumeIntegralInRange(0, 4); n > 0; --n) {
        std::string name = chat_text(data, 8);
        if (names.insert(name).second)
          object.emplace_back(std::move(name), any_value(data, level + 1));
      }
      return ChatValue(std::move(object));
    }
  }
}

/// Something like a JSON schema.
inline ChatValue any_schema(Data& data, int level = 0) {
  if (level > 4 || data.remaining_bytes() == 0 || data.ConsumeIntegralInRange(0, 9) == 0)
    return any_value(data, level);
  ChatValue::Object schema;
  std::unordered_set<std::string> keywords;
  for (int n = data.ConsumeIntegralInRange(0, 4); n > 0; --n) {
    const std::string keyword = data.PickValueInArray<const char*>(
        {"type", "description", "nullable", "enum", "const", "properties", "required", "items",
         "anyOf", "oneOf", "allOf", "$ref", "$defs", "additionalProperties"});
    if (!keywords.insert(keyword).second) continue;
    if (keyword == "type" && data.ConsumeBool()) {
      schema.emplace_back(keyword,
                          ChatValue(data.PickValueInArray<const char*>(
                              {"string", "OBJECT", "array", "integer", "null", "object"})));
    } else if (keyword == "$ref") {
      schema.emplace_back(keyword, ChatValue(data.PickValueInArray<const char*>(
                                       {"#", "#/$defs/a", "#/properties/b", "#/items", "x"})));
    } else if (keyword == "properties" || keyword == "$defs") {
      ChatValue::Object members;
      members.emplace_back("a", any_schema(data, level + 1));
      if (data.ConsumeBool()) members.emplace_back("b", any_schema(data, level + 1));
      schema.emplace_back(keyword, ChatValue(std::move(members)));
    } else if (keyword.ends_with("Of")) {
      schema.emplace_back(keyword, ChatValue(ChatValue::Array{any_schema(data, level + 1),
                                                              any_schema(data, level + 1)}));
    } else if (keyword == "items") {
      schema.emplace_back(keyword, any_schema(data, level + 1));
    } else {
      schema.emplace_back(keyword, any_value(data, level + 1));
    }
  }
  return ChatValue(std::move(schema));
}

}  // namespace gemtp::fuzzing
