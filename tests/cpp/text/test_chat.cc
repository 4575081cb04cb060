#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "gguf_builder.h"
#include "text/chat.h"
#include "text/json.h"
#include "text/lower_case.h"
#include "text/reply.h"
#include "text/stop_strings.h"
#include "text/tool_schema.h"

using namespace gemtp;
using gemtp::testing::GgufBuilder;
using gemtp::testing::TempFile;

namespace {

using Ids = std::vector<int32_t>;
using Object = ChatValue::Object;

const char* const kMarks[] = {"<|channel>", "<channel|>",       "<|tool_call>", "<tool_call|>",
                              "<|\"|>",     "<|tool_response>", "<|turn>",      "<turn|>"};

/// Every byte, and the marks of a chat.
Tokenizer load() {
  std::vector<std::string> tokens = {"<eos>", "<bos>"};
  std::vector<int32_t> types = {3, 3};
  for (const char* mark : kMarks) {
    tokens.push_back(mark);
    types.push_back(4);
  }
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(format("<0x%02X>", byte));
    types.push_back(6);
  }
  GgufBuilder b;
  b.text("tokenizer.ggml.model", "gemma4").texts("tokenizer.ggml.tokens", tokens);
  b.array("tokenizer.ggml.token_type", ValueType::kInt32, types);
  b.texts("tokenizer.ggml.merges", {});
  b.scalar("tokenizer.ggml.bos_token_id", ValueType::kInt32, 1);
  const TempFile temp(b.bytes());
  return Tokenizer(*GgufFile::open(temp.path()));
}

/// Events as text: thoughts in (), calls in [], malformed ones in {}; neighbours joined.
std::string parsed(const Tokenizer& t, const std::string& reply, const Ids& prompt = {},
                   const std::vector<std::string>& stop = {}) {
  ReplyParser parser(t, prompt, stop);
  std::string out;
  ReplyPart last = ReplyPart::kContent;
  const auto add = [&](const std::vector<ReplyEvent>& events) {
    for (const ReplyEvent& e : events) {
      CHECK(!e.text.empty());
      CHECK(find_invalid_utf8(e.text) == std::string::npos);
      if (e.part == ReplyPart::kContent) {
        out += e.text;
      } else if (e.part == ReplyPart::kThinking) {
        if (last == ReplyPart::kThinking && !out.empty() && out.back() == ')')
          out.pop_back();
        else
          out += "(";
        out += e.text + ")";
      } else {
        const bool good = e.part == ReplyPart::kToolCall;
        out += good ? "[" + e.call.name + "]" : "{" + e.text + "}";
      }
      last = e.part;
    }
  };
  for (const int32_t id : t.encode(reply, false, true)) add(parser.push(id));
  add(parser.finish());
  return out;
}

ToolCall call_of(std::string text) {
  for (size_t at; (at = text.find('"')) != text.npos;) text[at] = '\xFF';
  ToolCall call;
  CHECK(parse_tool_call(text, &call));
  return call;
}

bool malformed(std::string text) {
  for (size_t at; (at = text.find('"')) != text.npos;) text[at] = '\xFF';
  ToolCall call;
  return !parse_tool_call(text, &call);
}

}  // namespace

TEST_CASE("chat: a conversation with tools in Gemma 4's format") {
  ChatRequest request;
  request.thinking = true;
  request.tools.emplace_back(
      Object{{"function",
              ChatValue(Object{
                  {"name", ChatValue("f")},
                  {"description", ChatValue("<b>")},
                  {"parameters",
                   ChatValue(Object{
                       {"type", ChatValue("object")},
                       {"properties",
                        ChatValue(Object{
                            {"n", ChatValue(Object{{"type", ChatValue("integer")}})}})}})}})}});
  ChatMessage user{"user", " hi ", {}, {}};
  ChatMessage model{"assistant", {}, {}, {}};
  model.tool_calls.push_back(
      {"f", ChatValue(Object{{"n", ChatValue(int64_t{1})}, {"A", ChatValue("x")}})});
  model.tool_responses.push_back({"f", ChatValue(ChatValue::Array{ChatValue(0.5), ChatValue()})});
  request.messages = {user, model};
  const RenderedChat out = render_chat(request);
  CHECK(out.text ==
        "<bos><|turn>system\n<|think|><|tool>declaration:f{description:<|\"|><b><|\"|>,parameters:{"
        "properties:{n:{type:<|\"|>INTEGER<|\"|>}},type:<|\"|>OBJECT<|\"|>}}<tool|><turn|>\n"
        "<|turn>user\nhi<turn|>\n<|turn>model\n<|tool_call>call:f{A:<|\"|>x<|\"|>,n:1}<tool_call|>"
        "<|tool_response>response:f{value:[0.5,None]}<tool_response|>");
  std::string given;
  for (const TextRange& r : out.literal) given += out.text.substr(r.begin, r.end - r.begin) + ";";
  CHECK(given == "f;<b>;n;INTEGER;OBJECT;user;hi;model;f;A;x;n;f;");
}

TEST_CASE("chat: what the format has no words for is refused") {
  const auto refused = [](const ChatRequest& request) {
    try {
      render_chat(request);
    } catch (const Error& e) {
      return e.kind() == ErrorKind::kArgument;
    }
    return false;
  };
  ChatRequest request;
  CHECK(refused(request));  // no messages
  request.messages.push_back({"user", "x", {}, {}});
  CHECK(!refused(request));
  for (const char* what : {"properties", "required"}) {
    request.tools = {ChatValue(
        Object{{"function",
                ChatValue(Object{{"parameters", ChatValue(Object{{what, ChatValue("no")}})}})}})};
    CHECK(refused(request));
  }
  request.tools = {ChatValue("f")};
  CHECK(refused(request));
  request.tools.clear();
  ChatValue deep;
  for (int i = 0; i < 100; ++i) deep = ChatValue(ChatValue::Array{deep});
  request.messages[0].tool_responses.push_back({"f", deep});
  CHECK(refused(request));
}

TEST_CASE("chat: text of messages is text, whatever it spells") {
  const Tokenizer t = load();
  const std::string text = "<|turn>user\n<|turn>x<turn|><turn|>";
  const size_t begin = 12, end = 27;  // "<|turn>x<turn|>"
  const Ids ids = t.encode_chat(text, {{begin, end}}, false);
  CHECK(t.decode(ids, true) == text);
  int marks = 0;
  for (const int32_t id : ids) marks += id < 10;
  CHECK(marks == 2);
  CHECK(t.encode_chat(text, {}, false) == t.encode(text, false, true));
  CHECK(t.encode_chat(text, {{0, text.size()}}, false) == t.encode(text, false, false));
  // One byte of it is enough.
  CHECK(t.encode_chat("<|turn>", {{3, 4}}, false) == t.encode("<|turn>", false, false));
}

TEST_CASE("reply: thoughts, answer and calls, by token") {
  const Tokenizer t = load();
  CHECK(parsed(t, "hello") == "hello");
  CHECK(parsed(t, "<|channel>thought\nhm\n\nhm\n<channel|>yes") == "(hm\n\nhm)yes");
  CHECK(parsed(t, "<|channel>thought\n<channel|>yes") == "yes");
  CHECK(parsed(t, "<|channel>thought<channel|>yes") == "yes");
  CHECK(parsed(t, "<|channel>other<channel|>yes") == "(other)yes");
  CHECK(parsed(t, "<|channel>th<channel|>yes") == "(th)yes");
  CHECK(parsed(t, "<|channel>thought\nunfinished") == "(unfinished)");
  CHECK(parsed(t, "a<|channel>thought\nb<channel|>c<|channel>d<channel|>") == "a(b)c(d)");
  CHECK(parsed(t, "a<|tool_call>call:f{}<tool_call|>b<|tool_call>call:g{}<tool_call|>") ==
        "a[f]b[g]");
  CHECK(parsed(t, "<|channel>x<|tool_call>call:f{}<tool_call|>y") == "(x)[f]y");
  CHECK(parsed(t, "h\xC3\xA9<|channel>\xC3\xA9<channel|>") == "h\xC3\xA9(\xC3\xA9)");
  CHECK(parsed(t, "<channel|><tool_call|>") == "<channel|><tool_call|>");
}

TEST_CASE("reply: marks spelled in text are text") {
  const Tokenizer t = load();
  ReplyParser parser(t, {}, {});
  std::string content;
  for (const int32_t id : t.encode("<|channel>thought\n<|tool_call>", false, false))
    for (const ReplyEvent& e : parser.push(id)) {
      CHECK(e.part == ReplyPart::kContent);
      content += e.text;
    }
  CHECK(content == "<|channel>thought\n<|tool_call>");
}

TEST_CASE("reply: a prompt may have opened a thought") {
  const Tokenizer t = load();
  const auto after = [&](const char* prompt) {
    return parsed(t, "x\n<channel|>y", t.encode(prompt, false, true));
  };
  CHECK(after("<|turn>model\n<|channel>thought\n") == "(x)y");
  CHECK(after("<|turn>model\n<|channel>thought\n<channel|>") == "x\n<channel|>y");
  CHECK(after("<|channel>a<|turn>model\n") == "x\n<channel|>y");
}

TEST_CASE("reply: a malformed call stays text") {
  const Tokenizer t = load();
  for (const char* text : {"<|tool_call>call:f{<tool_call|>", "<|tool_call>f{}<tool_call|>",
                           "<|tool_call><tool_call|>", "<|tool_call>call:f{a:<|\"|>b}<tool_call|>",
                           "<|tool_call>call:f{}", "<|tool_call>"}) {
    CHECK(parsed(t, text) == format("{%s}", text));
  }
  CHECK(parsed(t, "<|tool_call>call:f{<|tool_call>call:g{}<tool_call|>") ==
        "{<|tool_call>call:f{}[g]");
  CHECK(parsed(t, "<|tool_call>call:f{a:<|\"|><tool_call|><|\"|>}<tool_call|>") == "[f]");
}

TEST_CASE("reply: stop strings end the answer, not a thought") {
  const Tokenizer t = load();
  CHECK(parsed(t, "<|channel>END<channel|>abENDcd", {}, {"END"}) == "(END)ab");
  CHECK(parsed(t, "abEN", {}, {"END"}) == "abEN");
  CHECK(parsed(t, "abEN<|channel>x<channel|>D", {}, {"END"}) == "abEN(x)D");
  CHECK_FALSE(StopStrings({""}).found());
  StopStrings empty({"", "x"});
  CHECK(empty.push("a\n") == "a\n");
  CHECK(empty.push("bx") == "b");
  CHECK(empty.found());
  CHECK_THROWS_AS(StopStrings({"\xFF"}), Error);
}

TEST_CASE("calls: names and arguments") {
  const ToolCall call = call_of(
      "call:f{s:\"a,}b:\",i:-12,d:1.5e3,t:true,n:null,w:two words,l:[1,\"x\",[]],o:{k:{},\"q "
      "k\":0}}");
  CHECK(call.name == "f");
  CHECK(*call.arguments.find("s")->string() == "a,}b:");
  CHECK(*call.arguments.find("i")->integer() == -12);
  CHECK(*call.arguments.find("d")->real() == 1500);
  CHECK(*call.arguments.find("t")->boolean());
  CHECK(call.arguments.find("n")->is_null());
  CHECK(*call.arguments.find("w")->string() == "two words");
  CHECK(call.arguments.find("l")->array()->size() == 3);
  CHECK(*call.arguments.find("o")->find("q k")->integer() == 0);
  CHECK(call_of(" call: g { a : 1 , b : [ ] } ").arguments.object()->size() == 2);
  CHECK(call_of("call:f{n:99999999999999999999}").arguments.find("n")->big_integer()->digits ==
        "99999999999999999999");
  CHECK(*call_of("call:f{n:1.}").arguments.find("n")->string() == "1.");
  for (const char* text : {"", "call:", "call:{}", "call:f", "call:f{", "call:f{a}", "call:f{a:}",
                           "call:f{a:1", "call:f{a:1,}", "call:f{:1}", "call:f{a:1}x", "call:f[1]x",
                           "call:f{a:[1}", "call:f{a:\"x}", "call:f{a:1,a:2}", "call:\"f\"{}"}) {
    INFO(text);
    CHECK(malformed(text));
  }
  ToolCall repeated;
  CHECK(parse_tool_call("call:f{a:1,b:2,a:3}", &repeated, true));
  CHECK(*repeated.arguments.find("a")->integer() == 3);
  CHECK(repeated.arguments.object()->size() == 2);
  CHECK(malformed("call:f{a:" + std::string(1000, '[') + std::string(1000, ']') + "}"));
}

TEST_CASE("lower case") {
  CHECK(lower_case("aZ09\xC3\x84\xC3\x9F\xCE\xA3\xC4\xB0\xE1\xBA\x9E\xF0\x90\x90\x80\xFF") ==
        "az09\xC3\xA4\xC3\x9F\xCF\x83i\xCC\x87\xC3\x9F\xF0\x90\x90\xA8\xFF");
}

namespace {

/// The arguments of "call:f{...}" as JSON; "malformed" where they cannot be read. ~ is a quote
/// token.
std::string arguments_of(std::string text) {
  for (size_t at; (at = text.find('~')) != text.npos;) text[at] = '\xFF';
  ToolCall call;
  return parse_tool_call("call:f{" + text + "}", &call) ? to_json(call.arguments) : "malformed";
}

}  // namespace

TEST_CASE("calls: spellings of JSON and Python are read as what they are") {
  const std::pair<const char*, const char*> kRead[] = {
      {R"(refs:["ds_1","b, c"])", R"({"refs":["ds_1","b, c"]})"},
      {R"("city": "Paris", 'land': 'it\'s "F"')", R"({"city":"Paris","land":"it's \"F\""})"},
      {R"(a:{"b}": "{,]:", ~c~:~"d\n~})", R"({"a":{"b}":"{,]:","c":"\"d\\n"}})"},
      {R"(s:"\u00e9\ud83d\ude42\n\/\\\"", t:'\x41\U0001F642')",
       "{\"s\":\"\xC3\xA9\xF0\x9F\x99\x82\\n/\\\\\\\"\",\"t\":\"A\xF0\x9F\x99\x82\"}"},
      {R"(r:"\d+\w")", R"({"r":"\\d+\\w"})"},
      {R"(a:'\a\v\101\1018\7',b:"\0\777\9\N")",
       "{\"a\":\"\\u0007\\u000bAA8\\u0007\",\"b\":\"\\u0000\xC7\xBF\\\\9\\\\N\"}"},
      {"a:True,b:False,c:None,d:true,e:null", R"({"a":true,"b":false,"c":null,"d":true,"e":null})"},
      {"zip:01234,z:-01,o:0,m:-0.5,p:00.5",
       R"({"zip":"01234","z":"-01","o":0,"m":-0.5,"p":"00.5"})"},
      {"n:123456789012345678901234567890,m:-9223372036854775809,i:-9223372036854775808",
       R"({"n":123456789012345678901234567890,"m":-9223372036854775809,"i":-9223372036854775808})"},
      {"a:0.1,b:1.0,c:1e22,d:5e-324,e:1e-999", R"({"a":0.1,"b":1.0,"c":1e+22,"d":5e-324,"e":0.0})"},
      {"w:say \xE2\x80\x9Chi\xE2\x80\x9D,u:5`",
       "{\"w\":\"say \xE2\x80\x9Chi\xE2\x80\x9D\",\"u\":\"5`\"}"},
      {"w:don't stop,u:http://x.y/z", R"({"w":"don't stop","u":"http://x.y/z"})"},
      {"1:2,t: :-D", R"({"1":2,"t":":-D"})"},
      {R"("":'')", R"({"":""})"},
      {"a:f(x),b:[(1), :)],c:r'n'b,d:sad :(",
       R"x({"a":"f(x)","b":["(1)",":)"],"c":"r'n'b","d":"sad :("})x"},
  };
  for (const auto& [text, json] : kRead) {
    INFO(text);
    CHECK(arguments_of(text) == json);
  }
  for (const char* text : {"a:NaN",
                           "a:+Infinity",
                           "a:-nan",
                           "a:[Infinity]",
                           "a:-Infinity",
                           "a:nan",
                           "a:-inf",
                           "a:1e999",
                           "a:\"b",
                           "a:'b",
                           "a:\"b\"c",
                           "a:b\"c",
                           "a:[\"b\" \"c\"]",
                           "a:\"\\ud800\"",
                           "a:\"\\u12\"",
                           "a:\"~\"",
                           "\"a:1",
                           "\"a\"b:1",
                           "a:'x','a':1",
                           "a:\"b\\",
                           "a:\xE2\x80\x9C"
                           "b, c\xE2\x80\x9D",
                           "\xE2\x80\x9C"
                           "a\xE2\x80\x9D:1",
                           "a:`b, c`",
                           "a:\xC2\xAB"
                           "b\xC2\xBB",
                           "a:[(1, 2)]",
                           "a:[(), f([1])]",
                           "a:[u'x', u'y']",
                           "a:[b'x, y']",
                           "a:f({})"}) {
    INFO(text);
    CHECK(arguments_of(text) == "malformed");
  }
  CHECK(arguments_of("n:" + std::string(5000, '1')) == "malformed");
  CHECK(arguments_of(R"(a:'\N{BULLET}')") == "malformed");  // a character by name
  ToolCall call;
  CHECK(!parse_tool_call("call:'f'{}", &call));
}

TEST_CASE("reply: a call behind a thought needs no mark") {
  const Tokenizer t = load();
  const auto behind = [&](const std::string& reply, const char* prompt = "",
                          const std::vector<std::string>& stop = {}) {
    ReplyParser parser(t, t.encode(prompt, false, true), stop, {"f", "g.h"});
    std::string out;
    const auto add = [&](const std::vector<ReplyEvent>& events) {
      for (const ReplyEvent& e : events) {
        if (e.part == ReplyPart::kContent) out += e.text;
        if (e.part == ReplyPart::kToolCall)
          out += "[" + e.call.name + to_json(e.call.arguments) + "]";
        if (e.part == ReplyPart::kMalformedCall) out += "{" + e.text + "}";
      }
    };
    for (const int32_t id : t.encode(reply, false, true)) add(parser.push(id));
    add(parser.finish());
    return out;
  };
  const std::string thought = "<|channel>thought\nhm\n<channel|>";
  CHECK(behind(thought + "call:f{a:<|\"|>}b<|\"|>}<tool_call|>") == "[f{\"a\":\"}b\"}]");
  CHECK(behind(thought + "\ncall:f{}\n") == "[f{}]");
  CHECK(behind(thought + "call:f{a:'}'}") == "[f{\"a\":\"}\"}]");
  CHECK(behind(thought + "call:g.h{}<tool_call|>x<|tool_call>call:f{}<tool_call|>") ==
        "[g.h{}]x[f{}]");
  CHECK(behind(thought + "call:f{}<|channel>more<channel|>call:f{}") == "[f{}][f{}]");
  CHECK(behind("call:f{}", "<|turn>model\n<|channel>thought\n<channel|>") == "[f{}]");
  CHECK(behind("x<channel|>call:f{}", "<|turn>model\n<|channel>thought\n") == "[f{}]");
  // What is text: without a thought, of another name, in a sentence, or not to be read.
  for (const char* text : {"call:f{}\nis", "call:f{}}", "call:e{}", "call:f\n{}", "Use\ncall:f{}",
                           "call:f{a", "call:f{a}<tool_call|>", "call:", "\n\n", "call:f{}<|\"|>",
                           "call:f{a:<|\"|>b", "call:f{}<channel|>"}) {
    INFO(text);
    CHECK(behind(thought + text) == text);
  }
  CHECK(behind("call:f{}") == "call:f{}");
  CHECK(behind("call:f{}", "<|turn>model\n") == "call:f{}");
  CHECK(parsed(t, thought + "call:f{}") == "(hm)call:f{}");  // no function was declared
  // Stop strings are for text.
  CHECK(behind(thought + "call:f{a:END}", "", {"END"}) == "[f{\"a\":\"END\"}]");
  CHECK(behind(thought + "call:f{a:END} so", "", {"END"}) == "call:f{a:");
}

TEST_CASE("chat: declarations in the form that templates can write") {
  const auto written = [](Object parameters) {
    const ChatValue tool = writable_declaration(ChatValue(
        Object{{"function", ChatValue(Object{{"name", ChatValue("f")},
                                             {"description", ChatValue()},
                                             {"parameters", ChatValue(std::move(parameters))}})}}));
    CHECK(writable_declaration(tool) == tool);
    const ChatValue* function = tool.find("function");
    CHECK(!function->find("description"));
    return to_json(*function->find("parameters"));
  };
  const auto types = [](std::initializer_list<const char*> names) {
    ChatValue::Array out;
    for (const char* name : names) out.emplace_back(name);
    return ChatValue(std::move(out));
  };
  const auto property = [&](Object schema) {
    return written({{"properties", ChatValue(Object{{"p", ChatValue(std::move(schema))}})}});
  };
  CHECK(written({}) == "{}");
  CHECK(property({{"type", types({"string", "null"})}, {"description", ChatValue()}}) ==
        R"({"properties":{"p":{"nullable":true,"type":"string"}},"type":"object"})");
  CHECK(property({{"const", ChatValue(int64_t{3})}}) ==
        R"({"properties":{"p":{"enum":[3],"type":"integer"}},"type":"object"})");
  CHECK(property({{"type", ChatValue("object")}, {"additionalProperties", ChatValue(false)}}) ==
        R"({"properties":{"p":{"type":"object","additionalProperties":false,"properties":{}}},)"
        R"("type":"object"})");
  Object itself{
      {"properties", ChatValue(Object{{"p", ChatValue(Object{{"$ref", ChatValue("#")}})}})}};
  CHECK(written(itself) ==
        R"({"properties":{"p":{"properties":{"p":{"type":"object","properties":{}}},)"
        R"("type":"object"}},"type":"object"})");
  CHECK_THROWS_AS(property({{"$ref", ChatValue("#/$defs/x")}}), Error);
  CHECK_THROWS_AS(property({{"$ref", ChatValue("http://x/y")}}), Error);
  CHECK_THROWS_AS(property({{"type", ChatValue(int64_t{3})}}), Error);
  CHECK_THROWS_AS(property({{"required", ChatValue("x")}}), Error);
}
