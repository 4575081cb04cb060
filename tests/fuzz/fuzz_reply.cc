// What a model may say: replies with thoughts and calls in any tokens, the text of calls, and stop
// strings that end an answer, whatever the pieces it arrives in.
#include <algorithm>

#include "any_value.h"
#include "choose/reply_constraint.h"
#include "fuzz.h"
#include "text/json.h"
#include "text/reply.h"
#include "text/stop_strings.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

// Tokens of any kind; often those that open and close the parts of a reply, or spell a call.
std::vector<int32_t> any_reply(Data& data) {
  const Tokenizer& tokenizer = shipped_tokenizer();
  static const std::vector<int32_t> marks = reply_marks(tokenizer);
  std::vector<int32_t> ids;
  while (data.remaining_bytes() > 0 && ids.size() < 200) {
    switch (data.ConsumeIntegralInRange(0, 3)) {
      case 0:
        if (!marks.empty())
          ids.push_back(marks[data.ConsumeIntegralInRange<size_t>(0, marks.size() - 1)]);
        break;
      case 1:
        ids.push_back(data.ConsumeIntegralInRange<int32_t>(0, tokenizer.vocab_size() - 1));
        break;
      default: {
        static const std::vector<std::string> kWords = {
            "thought\n", "call:", "f", "{", "}", "a:", ",", "1",    "[",       "]",  "true",
            "None",      "\"",    "'", ":", " ", "\n", "-", ".5e9", "\\u0041", "\\", "STOP"};
        const auto more = tokenizer.encode(any_text(data, 30, kWords), false, true);
        ids.insert(ids.end(), more.begin(), more.end());
      }
    }
  }
  return ids;
}

void check_events(const std::vector<ReplyEvent>& events, std::string* text) {
  for (const ReplyEvent& event : events) {
    FUZZ_CHECK(!event.text.empty());
    check_text(event.text);
    if (event.part == ReplyPart::kToolCall) {
      FUZZ_CHECK(event.call.arguments.object() != nullptr);
      check_text(to_json(event.call.arguments));
    }
    *text += reply_part_name(event.part);
    *text += event.text;
  }
}

void parse_reply(Data& data) {
  const Tokenizer& tokenizer = shipped_tokenizer();
  const bool masked = data.ConsumeBool();
  std::vector<std::string> stop;
  if (data.ConsumeBool()) stop = {"STOP", any_text(data, 6)};
  const std::vector<int32_t> reply = any_reply(data);
  ReplyParser parser(tokenizer, {}, stop, {"f", "get"}, masked);
  std::string text;
  for (const int32_t id : reply) check_events(parser.push(id), &text);
  check_events(parser.finish(), &text);
  FUZZ_CHECK(parser.finish().empty());
}

void parse_call(Data& data) {
  static const std::vector<std::string> kWords = {
      "call:",          "f",    "{",  "}", "a:", ",",  "1", "[",   "]",
      "true",           "null", "\"", "'", ": ", "\n", "-", "1e5", "\\u00e4",
      "\\ud83d\\ude00", "\\"};
  std::string text = data.ConsumeBool() ? "call:f{" : "";
  text += any_text(data, 200, kWords);
  for (char& c : text)
    if (c == '\x01') c = kQuoteMark;
  const size_t end = end_of_tool_call(text);
  FUZZ_CHECK(end <= text.size());
  for (const bool repeats : {false, true}) {
    ToolCall call, again;
    const bool read = parse_tool_call(text, &call, repeats);
    FUZZ_CHECK(parse_tool_call(text, &again, repeats) == read);
    if (!read) continue;
    FUZZ_CHECK(call.arguments.object() != nullptr && again.arguments == call.arguments);
    check_text(call.name);
    check_text(to_json(call.arguments));
  }
}

void stop_text(Data& data) {
  std::vector<std::string> strings;
  for (int n = data.ConsumeIntegralInRange(0, 3); n > 0; --n)
    strings.push_back(data.ConsumeBool() ? any_text(data, 5, {"a", "b", "ab"})
                                         : data.ConsumeRandomLengthString(4));
  std::unique_ptr<StopStrings> stop;
  const bool valid = std::all_of(strings.begin(), strings.end(), [](const std::string& s) {
    return find_invalid_utf8(s) == std::string::npos;
  });
  const bool was_refused =
      refused([&] { stop = std::make_unique<StopStrings>(strings); }, {ErrorKind::kArgument});
  FUZZ_CHECK(was_refused != valid);
  if (was_refused) return;
  std::string whole, shown;
  while (data.remaining_bytes() > 0 && !stop->found()) {
    const std::string piece = any_text(data, 8, {"a", "b", "ab", "aab"});
    whole += piece;
    shown += stop->push(piece);
  }
  if (!stop->found()) shown += stop->finish();
  size_t first = std::string::npos;  // where the text ends: at the first stop string
  for (const std::string& s : strings)
    if (!s.empty()) first = std::min(first, whole.find(s));
  FUZZ_CHECK(stop->found() == (first != std::string::npos));
  FUZZ_CHECK(shown == whole.substr(0, first));
}

// Tokens under the rules of a reply: the mask and allowed() agree, and after pop() all is as
// before.
void constrain_reply(Data& data) {
  const Tokenizer& tokenizer = shipped_tokenizer();
  ReplyRules rules;
  rules.thoughts = data.ConsumeBool();
  rules.calls = data.ConsumeBool();
  rules.required = rules.calls && data.ConsumeBool();
  if (data.ConsumeBool()) rules.functions = {"f", chat_text(data, 8)};
  const std::vector<int32_t> reply = any_reply(data);
  refused(
      [&] {
        ReplyConstraint constraint(tokenizer, {}, rules);
        const auto words = static_cast<size_t>(tokenizer.vocab_size() + 31) / 32;
        for (const int32_t id : reply) {
          std::vector<uint32_t> mask(words), after(words);
          constraint.mask(mask.data(), static_cast<int64_t>(words));
          const bool allowed = constraint.allowed(&id, 1) == 1;
          FUZZ_CHECK(in_mask(mask.data(), id) == allowed);
          for (const int32_t forced : constraint.forced())
            FUZZ_CHECK(forced >= 0 && forced < tokenizer.vocab_size());
          if (!allowed) continue;
          constraint.push(&id, 1);
          constraint.pop(1);
          constraint.mask(after.data(), static_cast<int64_t>(words));
          FUZZ_CHECK(after == mask);
          constraint.push(&id, 1);
        }
      },
      {ErrorKind::kArgument, ErrorKind::kModel});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static constexpr void (*kReaders[])(Data&) = {parse_reply, parse_call, stop_text,
                                                constrain_reply};
  Data data(bytes, size);
  kReaders[data.ConsumeIntegralInRange<size_t>(0, std::size(kReaders) - 1)](data);
  return 0;
}
