#include "text/chat.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <locale>
#include <sstream>

#include "base/error.h"
#include "base/utf8.h"
#include "text/lower_case.h"
#include "text/tool_schema.h"

namespace gemtp {
namespace {

constexpr std::string_view kQuote = "<|\"|>";
constexpr int kMaxNesting = 64;

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::kArgument, what); }

/// The text written so far, and which parts of it came from the request.
class Writer {
 public:
  explicit Writer(RenderedChat* out) : out_(*out) {}
  void own(std::string_view text) { out_.text += text; }
  void given(std::string_view text) {
    if (text.empty()) return;
    const size_t begin = out_.text.size();
    out_.text += text;
    if (!out_.literal.empty() && out_.literal.back().end == begin)
      out_.literal.back().end = out_.text.size();
    else
      out_.literal.push_back({begin, out_.text.size()});
  }
  void quoted(std::string_view text) {
    own(kQuote);
    given(text);
    own(kQuote);
  }

 private:
  RenderedChat& out_;
};

/// Writes its text before every element of a list but the first.
class Comma {
 public:
  explicit Comma(Writer* out) : out_(*out) {}
  void operator()() {
    if (!first_) out_.own(",");
    first_ = false;
  }

 private:
  Writer& out_;
  bool first_ = true;
};

// Whether Python counts c as white space, which the template trims.
bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string_view trimmed(std::string_view text) {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(p + at, text.size() - at);
    const auto length = static_cast<size_t>(step.length);
    if (step.status != Utf8Status::kValid || !is_space(step.code)) {
      begin = std::min(begin, at);
      end = at + length;
    }
    at += length;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

/// Returns an earlier answer without its thoughts: of each piece between <channel|>s, the part
/// before the first <|channel>.
std::string without_thoughts(std::string_view text) {
  constexpr std::string_view kOpen = "<|channel>", kClose = "<channel|>";
  std::string out;
  for (size_t at = 0;;) {
    const size_t close = text.find(kClose, at);
    const std::string_view part = text.substr(at, close == text.npos ? close : close - at);
    out += part.substr(0, part.find(kOpen));
    if (close == text.npos) break;
    at = close + kClose.size();
  }
  return std::string(trimmed(out));
}

/// Formats x as Python prints it: with the fewest digits that give the number back, laid out by
/// Python's rules.
std::string real_text(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  std::string digits;  // "-d.ddde+xx"
  for (int precision = 0; precision < 17; ++precision) {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    out.setf(std::ios::scientific, std::ios::floatfield);
    out.precision(precision);
    out << x;
    digits = out.str();
    std::istringstream in(digits);
    in.imbue(std::locale::classic());
    double back = 0;
    in >> back;
    if (back == x) break;
  }
  std::string sign = digits[0] == '-' ? "-" : "";
  digits.erase(0, sign.size());
  const size_t e = digits.find('e');
  const int exponent = std::atoi(digits.c_str() + e + 1);
  digits.erase(e);
  digits.erase(std::remove(digits.begin(), digits.end(), '.'), digits.end());
  while (digits.size() > 1 && digits.back() == '0') digits.pop_back();
  const int n = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    if (n > 1) digits.insert(1, 1, '.');
    return sign + digits + format("e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (exponent + 1 >= n) {
    return sign + digits + std::string(static_cast<size_t>(exponent + 1 - n), '0') + ".0";
  }
  digits.insert(static_cast<size_t>(exponent + 1), 1, '.');
  return sign + digits;
}

/// Formats a string as Python prints it inside a list.
std::string quoted_text(const std::string& s) {
  const bool has_single = s.find('\'') != s.npos, has_double = s.find('"') != s.npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : s) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x80) refuse("a list or object in the place of a text may hold ASCII only");
    if (c == quote || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += format("\\x%02x", byte);
    } else {
      out += c;
    }
  }
  return out + quote;
}

/// Formats a value as a template does where it expects text: as Python prints it. A missing value
/// is empty.
std::string plain_text(const ChatValue* v, int depth = 0) {
  if (!v) return "";
  if (v->is_null()) return "None";
  if (const std::string* s = v->string()) return depth > 0 ? quoted_text(*s) : *s;
  if (const bool* b = v->boolean()) return *b ? "True" : "False";
  if (const int64_t* i = v->integer()) return std::to_string(*i);
  if (const BigInteger* i = v->big_integer()) return i->digits;
  if (const double* d = v->real()) return real_text(*d);
  if (depth > kMaxNesting)
    refuse(format("a value is nested more than %d deep; simplify it", kMaxNesting));
  std::string out;
  if (const ChatValue::Array* items = v->array()) {
    for (const ChatValue& item : *items)
      out += (out.empty() ? "" : ", ") + plain_text(&item, depth + 1);
    return "[" + out + "]";
  }
  for (const auto& [key, value] : *v->object())
    out += (out.empty() ? "" : ", ") + quoted_text(key) + ": " + plain_text(&value, depth + 1);
  return "{" + out + "}";
}

std::string upper_case(const ChatValue* v) {
  std::string text = plain_text(v);
  for (char& c : text) {
    if (static_cast<uint8_t>(c) >= 0x80) {
      refuse("the type " + quoted(text) + " in the declaration of a tool is not a name in ASCII");
    }
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
  }
  return text;
}

/// Whether the value is true in a template.
bool holds(const ChatValue* v) {
  if (!v || v->is_null()) return false;
  if (const bool* b = v->boolean()) return *b;
  if (const int64_t* i = v->integer()) return *i != 0;
  if (v->big_integer()) return true;
  if (const double* d = v->real()) return *d != 0;
  if (const std::string* s = v->string()) return !s->empty();
  if (const ChatValue::Array* a = v->array()) return !a->empty();
  return !v->object()->empty();
}

using Member = std::pair<std::string, ChatValue>;

/// Sorts members by key, ignoring case; keys that are then equal stay in their order.
std::vector<const Member*> sorted(const ChatValue::Object& object) {
  std::vector<std::pair<std::string, const Member*>> keyed;
  for (const Member& m : object) keyed.emplace_back(lower_case(m.first), &m);
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<const Member*> out;
  for (const auto& [key, member] : keyed) out.push_back(member);
  return out;
}

/// Renders tool arguments and declarations.
class ToolWriter {
 public:
  explicit ToolWriter(Writer* out) : out_(*out) {}

  void argument(const ChatValue& v, bool quote_keys) {
    const Nesting nesting(this);
    if (const std::string* s = v.string()) {
      out_.quoted(*s);
    } else if (const bool* b = v.boolean()) {
      out_.own(*b ? "true" : "false");
    } else if (const ChatValue::Object* object = v.object()) {
      out_.own("{");
      members(*object, quote_keys);
      out_.own("}");
    } else if (const ChatValue::Array* array = v.array()) {
      out_.own("[");
      Comma comma(&out_);
      for (const ChatValue& item : *array) {
        comma();
        argument(item, quote_keys);
      }
      out_.own("]");
    } else {
      out_.own(plain_text(&v));
    }
  }

  /// Writes key:value,key:value.
  void members(const ChatValue::Object& object, bool quote_keys) {
    Comma comma(&out_);
    for (const Member* m : sorted(object)) {
      comma();
      if (quote_keys)
        out_.quoted(m->first);
      else
        out_.given(m->first);
      out_.own(":");
      argument(m->second, quote_keys);
    }
  }

  void declaration(const ChatValue& given) {
    const ChatValue tool = writable_declaration(given);
    const ChatValue* function = tool.find("function");
    out_.own("declaration:");
    out_.given(plain_text(function->find("name")));
    out_.own("{description:");
    out_.quoted(plain_text(function->find("description")));
    const ChatValue* parameters = function->find("parameters");
    if (holds(parameters)) {
      out_.own(",parameters:{");
      if (const ChatValue* properties = parameters->find("properties"); holds(properties)) {
        out_.own("properties:{");
        this->properties(*properties);
        out_.own("},");
      }
      if (const ChatValue* required = parameters->find("required"); holds(required)) {
        required_list(*required);
        out_.own(",");
      }
      if (const ChatValue* type = parameters->find("type"); holds(type)) {
        out_.own("type:");
        out_.quoted(upper_case(type));
        out_.own("}");
      }
    }
    if (const ChatValue* response = function->find("response")) {
      out_.own(",response:{");
      if (const ChatValue* description = response->find("description"); holds(description)) {
        out_.own("description:");
        out_.quoted(plain_text(description));
        out_.own(",");
      }
      if (upper_case(response->find("type")) == "OBJECT") {
        out_.own("type:");
        out_.quoted("OBJECT");
        out_.own("}");
      }
    }
    out_.own("}");
  }

 private:
  struct Nesting {
    explicit Nesting(ToolWriter* writer) : depth(writer->depth_) {
      if (++depth > kMaxNesting)
        refuse(format("a value is nested more than %d deep; simplify it", kMaxNesting));
    }
    ~Nesting() { --depth; }
    int& depth;
  };

  void required_list(const ChatValue& required) {
    out_.own("required:[");
    Comma comma(&out_);
    for (const ChatValue& name : *required.array()) {
      comma();
      out_.quoted(plain_text(&name));
    }
    out_.own("]");
  }

  // A parameter with the name of a schema keyword is lost, as in the template.
  void properties(const ChatValue& given) {
    const Nesting nesting(this);
    constexpr std::array<std::string_view, 5> kWords = {"description", "type", "properties",
                                                        "required", "nullable"};
    Comma comma(&out_);
    for (const Member* m : sorted(*given.object())) {
      if (std::find(kWords.begin(), kWords.end(), m->first) != kWords.end()) continue;
      comma();
      out_.given(m->first);
      out_.own(":{");
      property(m->second);
      out_.own("}");
    }
  }

  void property(const ChatValue& v) {
    Comma comma(&out_);
    if (const ChatValue* description = v.find("description"); holds(description)) {
      comma();
      out_.own("description:");
      out_.quoted(plain_text(description));
    }
    if (holds(v.find("nullable"))) {
      comma();
      out_.own("nullable:true");
    }
    const std::string type = upper_case(v.find("type"));
    if (type == "STRING") {
      if (const ChatValue* allowed = v.find("enum"); holds(allowed)) {
        comma();
        out_.own("enum:");
        argument(*allowed, true);
      }
    } else if (type == "OBJECT") {
      // The template writes this comma whatever comes before it, and does not count it for later
      // commas.
      out_.own(",properties:{");
      properties(*v.find("properties"));
      out_.own("}");
      if (const ChatValue* required = v.find("required"); holds(required)) {
        out_.own(",");
        required_list(*required);
      }
    } else if (type == "ARRAY") {
      if (const ChatValue* items = v.find("items"); items && items->object() && holds(items)) {
        out_.own(",items:{");
        item_members(*items->object());
        out_.own("}");
      }
    }
    comma();
    out_.own("type:");
    out_.quoted(type);
  }

  void item_members(const ChatValue::Object& items) {
    Comma comma(&out_);
    for (const Member* m : sorted(items)) {
      const auto& [key, value] = *m;
      if (value.is_null()) continue;
      comma();
      if (key == "properties") {
        out_.own("properties:{");
        properties(value);
        out_.own("}");
      } else if (key == "required") {
        required_list(value);
      } else if (key == "type") {
        out_.own("type:");
        argument(upper_types(value), true);
      } else {
        out_.given(key);
        out_.own(":");
        argument(value, true);
      }
    }
  }

  static ChatValue upper_types(const ChatValue& type) {
    if (type.string()) return ChatValue(upper_case(&type));
    ChatValue::Array upper;
    for (const ChatValue& t : *type.array()) upper.emplace_back(upper_case(&t));
    return ChatValue(std::move(upper));
  }

  Writer& out_;
  int depth_ = 0;
};

class ChatWriter {
 public:
  explicit ChatWriter(RenderedChat* out) : out_(out), tools_(&out_) {}

  void conversation(const ChatRequest& request) {
    if (request.messages.empty()) refuse("the list of messages is empty");
    out_.own(request.bos);
    size_t first = 0;
    const std::string& role = request.messages[0].role;
    const bool has_system = role == "system" || role == "developer";
    if (request.thinking || !request.tools.empty() || has_system) {
      out_.own("<|turn>system\n");
      if (request.thinking) out_.own("<|think|>");
      if (has_system) system_text(request.messages[first++]);
      for (const ChatValue& tool : request.tools) {
        out_.own("<|tool>");
        tools_.declaration(tool);
        out_.own("<tool|>");
      }
      out_.own("<turn|>\n");
    }
    bool answered_tool = false;  // a tool responds in the previous message
    for (size_t i = first; i < request.messages.size(); ++i) {
      message(request.messages[i]);
      answered_tool = !request.messages[i].tool_responses.empty();
    }
    if (!request.generation_prompt) return;
    if (!answered_tool) out_.own("<|turn>model\n");
    if (!request.thinking) out_.own("<|channel>thought\n<channel|>");
  }

 private:
  void system_text(const ChatMessage& m) {
    if (std::holds_alternative<std::vector<std::string>>(m.content))
      refuse("the content of a system message must be one string");
    if (const auto* text = std::get_if<std::string>(&m.content)) out_.given(trimmed(*text));
  }

  void message(const ChatMessage& m) {
    const bool model = m.role == "assistant" || m.role == "model";
    if (!model || !m.preface || !turn_is_open_) {
      out_.own("<|turn>");
      out_.given(model ? "model" : m.role);
      out_.own("\n");
    }
    if (m.preface) out_.given(*m.preface);
    for (const ToolCall& call : m.tool_calls) {
      out_.own("<|tool_call>call:");
      out_.given(call.name);
      out_.own("{");
      if (const ChatValue::Object* arguments = call.arguments.object())
        tools_.members(*arguments, false);
      else if (const std::string* text = call.arguments.string())
        out_.given(*text);
      out_.own("}<tool_call|>");
    }
    for (const ToolResponse& r : m.tool_responses) response(r);
    bool empty = true;
    const auto write = [&](const std::string& text) {
      out_.given(model ? without_thoughts(text) : trimmed(text));
    };
    if (const auto* text = std::get_if<std::string>(&m.content)) {
      empty = text->empty();
      write(*text);
    } else if (const auto* parts = std::get_if<std::vector<std::string>>(&m.content)) {
      empty = parts->empty();
      for (const std::string& part : *parts) write(part);
    }
    // After a tool's response the model continues in the same turn.
    turn_is_open_ = !m.tool_responses.empty() && empty;
    if (!turn_is_open_) out_.own("<turn|>\n");
  }

  void response(const ToolResponse& r) {
    out_.own("<|tool_response>response:");
    out_.given(r.name);
    out_.own("{");
    if (const ChatValue::Object* object = r.response.object()) {
      tools_.members(*object, false);
    } else {
      out_.own("value:");
      tools_.argument(r.response, false);
    }
    out_.own("}<tool_response|>");
  }

  Writer out_;
  ToolWriter tools_;
  bool turn_is_open_ = false;
};

}  // namespace

bool speaks_chat(const Tokenizer& tokenizer) {
  return tokenizer.find("<|turn>") >= 0 && tokenizer.find("<turn|>") >= 0;
}

bool completes_texts(const GgufFile& file) {
  return !file.has("tokenizer.chat_template") || file.get_bool("gemtp.completes").value_or(false);
}

RenderedChat render_chat(const ChatRequest& request) {
  RenderedChat out;
  ChatWriter(&out).conversation(request);
  return out;
}

}  // namespace gemtp
