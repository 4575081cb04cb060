#include "text/tool_schema.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/json.h"

namespace gemtp {
namespace {

constexpr int kMaxNesting = 64;
constexpr int kMostSchemas = 10000;  // in one declaration, with all references expanded

using Array = ChatValue::Array;
using Object = ChatValue::Object;

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

ChatValue* find(Object* object, std::string_view key) {
  for (auto& [name, value] : *object)
    if (name == key) return &value;
  return nullptr;
}

void put(Object* object, const char* key, ChatValue value) {
  if (ChatValue* there = find(object, key))
    *there = std::move(value);
  else
    object->emplace_back(key, std::move(value));
}

/// Whether v is empty: null or an empty list, which some languages write for an empty object.
bool is_nothing(const ChatValue& v) { return v.is_null() || (v.array() && v.array()->empty()); }

bool is_text(const ChatValue* v, std::string_view text) {
  return v && v->string() && *v->string() == text;
}

bool is_object_type(const ChatValue* type) {
  if (!type || !type->string()) return false;
  std::string name = *type->string();
  for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return name == "object";
}

ChatValue without_nulls(const ChatValue& v) {
  if (const Array* items = v.array()) {
    Array out;
    for (const ChatValue& item : *items)
      if (!item.is_null()) out.push_back(without_nulls(item));
    return ChatValue(std::move(out));
  }
  if (const Object* members = v.object()) {
    Object out;
    for (const auto& [key, value] : *members)
      if (!value.is_null()) out.emplace_back(key, without_nulls(value));
    return ChatValue(std::move(out));
  }
  return v;
}

/// The common type of the values; if they differ, the type whose enum templates can render.
const char* type_of(const Array& values) {
  const auto all = [&](auto is) { return std::all_of(values.begin(), values.end(), is); };
  const auto whole = [](const ChatValue& v) { return v.integer() || v.big_integer(); };
  if (all([](const ChatValue& v) { return v.boolean() != nullptr; })) return "boolean";
  if (all(whole)) return "integer";
  if (all([&](const ChatValue& v) { return whole(v) || v.real(); })) return "number";
  return "string";
}

class Declaration {
 public:
  explicit Declaration(const ChatValue& tool) {
    const ChatValue* function = tool.find("function");
    if (!function || !function->object())
      refuse("a tool must be an object with the member \"function\", which is an object");
    const ChatValue* name = function->find("name");
    if (!name || !name->string()) refuse("the function of a tool has no name");
    name_ = *name->string();
    Object written;
    for (const auto& [key, value] : *function->object()) {
      if (key == "parameters")
        parameters(value, &written);
      else if (key == "description")
        description(value, &written);
      else if (key != "response" || is_object_type(value.find("type")))
        written.emplace_back(key, value);
    }
    if (ChatValue* response = find(&written, "response")) {
      Object described = *response->object();
      std::erase_if(described, [](const auto& m) { return m.first == "description"; });
      if (const ChatValue* text = response->find("description")) description(*text, &described);
      *response = ChatValue(std::move(described));
    }
    Object out = *tool.object();
    put(&out, "function", ChatValue(std::move(written)));
    tool_ = ChatValue(std::move(out));
  }

  const ChatValue& written() const { return tool_; }

 private:
  // kItem: a schema under `items`, where templates render every keyword and types may be a list.
  enum class Place { kParameter, kItem };

  [[noreturn]] static void refuse(const std::string& what) {
    throw Error(ErrorKind::kArgument, what);
  }
  [[noreturn]] void refuse_schema(const std::string& what) const {
    refuse("the parameters of the tool " + quoted(name_) + " " + what);
  }

  void parameters(const ChatValue& given, Object* out) {
    if (is_nothing(given)) return;
    if (!given.object()) refuse_schema("are no object; pass a JSON schema");
    root_ = &given;
    Object written = given.object()->empty() ? Object() : schema(given, Place::kParameter);
    if (!written.empty() && !find(&written, "type")) {
      put(&written, "type", ChatValue("object"));
      add_type(Place::kParameter, &written);
    }
    out->emplace_back("parameters", ChatValue(std::move(written)));
  }

  static void description(const ChatValue& given, Object* out) {
    if (given.is_null()) return;
    out->emplace_back("description", given.string() ? given : ChatValue(to_json(given)));
  }

  Object schema(const ChatValue& given, Place place) {
    if (++depth_ > kMaxNesting)
      refuse_schema(format("are nested more than %d deep; simplify them", kMaxNesting));
    if (++schemas_ > kMostSchemas)
      refuse_schema(format("are more than %d schemas with all that they refer to; simplify them",
                           kMostSchemas));
    Object out;
    if (const Object* members = given.object()) {
      for (const auto& [key, value] : *members) member(key, value, place, &out);
      for (const auto& [key, value] : *members) referred(key, value, place, &out);
    } else if (!is_nothing(given) && !given.boolean()) {
      refuse_schema("hold " + to_json(given).substr(0, 40) + " where a schema has to be");
    }
    add_type(place, &out);
    --depth_;
    return out;
  }

  void member(const std::string& key, const ChatValue& value, Place place, Object* out) {
    if (key.starts_with('$') ||
        is_one_of(key, {"allOf", "anyOf", "oneOf", "definitions", "patternProperties",
                        "dependentSchemas", "prefixItems"}))
      return;
    if (key == "description") return description(value, out);
    if (key == "type") return type(value, place, out);
    if (key == "nullable") {
      if (value.boolean()) put(out, "nullable", value);
    } else if (key == "enum" && value.array()) {
      allowed(*value.array(), out);
    } else if (key == "const") {
      allowed({value}, out);
    } else if (key == "properties") {
      properties(value, out);
    } else if (key == "required") {
      required(value, out);
    } else if (is_one_of(key, {"items", "additionalProperties", "contains", "not", "if", "then",
                               "else", "propertyNames", "unevaluatedProperties"})) {
      if (value.object())
        out->emplace_back(key, ChatValue(schema(value, Place::kItem)));
      else if (value.boolean() && key != "items")
        out->emplace_back(key, value);
    } else if (!value.is_null()) {
      out->emplace_back(key, without_nulls(value));
    }
  }

  void type(const ChatValue& given, Place place, Object* out) {
    if (given.string()) return out->emplace_back("type", given), void();
    if (is_nothing(given)) return;
    if (!given.array()) refuse_schema("have a type that is no name; write it as text");
    const ChatValue* first = nullptr;
    for (const ChatValue& name : *given.array()) {
      if (!name.string()) refuse_schema("have a type that is no name; write it as text");
      if (*name.string() == "null" && place == Place::kParameter && given.array()->size() > 1)
        put(out, "nullable", ChatValue(true));
      else if (!first)
        first = &name;
    }
    out->emplace_back("type", place == Place::kItem ? given : *first);
  }

  static void allowed(const Array& given, Object* out) {
    Array values;
    for (const ChatValue& value : given) {
      if (value.is_null())
        put(out, "nullable", ChatValue(true));
      else
        values.push_back(without_nulls(value));
    }
    if (!values.empty() || given.empty()) put(out, "enum", ChatValue(std::move(values)));
  }

  void properties(const ChatValue& given, Object* out) {
    Object written;
    if (!is_nothing(given)) {
      if (!given.object()) refuse_schema("have \"properties\" that are no object");
      for (const auto& [name, value] : *given.object())
        written.emplace_back(name, ChatValue(schema(value, Place::kParameter)));
    }
    out->emplace_back("properties", ChatValue(std::move(written)));
  }

  /// In older JSON schemas `required` can be true beside a type; that is not a list of names and is
  /// ignored.
  void required(const ChatValue& given, Object* out) {
    if (given.is_null() || given.boolean()) return;
    if (!given.array()) refuse_schema("have a \"required\" that is no list of names");
    for (const ChatValue& name : *given.array())
      if (!name.string()) refuse_schema("have a \"required\" that is no list of names");
    out->emplace_back("required", given);
  }

  void referred(const std::string& key, const ChatValue& value, Place place, Object* out) {
    if (key == "$ref") {
      if (!value.string()) refuse_schema("have a \"$ref\" that is no text");
      add(reference(*value.string(), place), out);
    } else if (key == "allOf" && value.array()) {
      for (const ChatValue& part : *value.array()) add(schema(part, place), out);
    } else if ((key == "anyOf" || key == "oneOf") && value.array()) {
      alternatives(*value.array(), place, out);
    }
  }

  void alternatives(const Array& given, Place place, Object* out) {
    std::vector<Object> left;
    for (const ChatValue& alternative : given) {
      Object written = schema(alternative, place);
      const ChatValue* nullable = find(&written, "nullable");
      if (is_text(find(&written, "type"), "null") || (nullable && written.size() == 1))
        put(out, "nullable", ChatValue(true));
      else
        left.push_back(std::move(written));
    }
    if (left.empty()) return;
    Array named;
    for (Object& alternative : left) {
      const ChatValue* values = find(&alternative, "enum");
      if (!values || !values->array()) return add(left.front(), out);
      for (const ChatValue& value : *values->array())
        if (std::find(named.begin(), named.end(), value) == named.end()) named.push_back(value);
    }
    if (left.size() > 1) put(&left.front(), "type", ChatValue(type_of(named)));
    put(&left.front(), "enum", ChatValue(std::move(named)));
    add(left.front(), out);
  }

  /// Adds the members that *out does not have yet.
  static void add(const Object& more, Object* out) {
    for (const auto& [key, value] : more) {
      ChatValue* there = find(out, key);
      if (!there) {
        out->emplace_back(key, value);
      } else if (key == "properties" && there->object() && value.object()) {
        Object both = *there->object();
        for (const auto& [name, property] : *value.object())
          if (!find(&both, name)) both.emplace_back(name, property);
        *there = ChatValue(std::move(both));
      } else if (key == "required" && there->array() && value.array()) {
        Array both = *there->array();
        for (const ChatValue& name : *value.array())
          if (std::find(both.begin(), both.end(), name) == both.end()) both.push_back(name);
        *there = ChatValue(std::move(both));
      }
    }
  }

  Object reference(const std::string& ref, Place place) {
    const ChatValue* target = pointed_at(ref);
    if (!target)
      refuse_schema("refer to " + quoted(ref) + ", which is not among them; put it into \"$defs\"");
    if (std::find(open_.begin(), open_.end(), target) != open_.end()) {
      const ChatValue* type = target->find("type");
      return {{"type", type && type->string() ? *type : ChatValue("object")}};
    }
    open_.push_back(target);
    Object out = schema(*target, place);
    open_.pop_back();
    return out;
  }

  /// Resolves a JSON pointer after "#"; null if it leads nowhere.
  const ChatValue* pointed_at(std::string_view ref) const {
    if (!ref.starts_with('#')) return nullptr;
    ref.remove_prefix(1);
    const ChatValue* at = root_;
    while (at && ref.starts_with('/')) {
      const size_t end = std::min(ref.find('/', 1), ref.size());
      const std::string step = unescaped(ref.substr(1, end - 1));
      ref.remove_prefix(end);
      if (const Array* items = at->array()) {
        const bool number =
            !step.empty() && step.size() < 6 && step.find_first_not_of("0123456789") == step.npos;
        const size_t i = number ? static_cast<size_t>(std::atoi(step.c_str())) : items->size();
        at = i < items->size() ? &(*items)[i] : nullptr;
      } else {
        at = at->find(step);
      }
    }
    return ref.empty() ? at : nullptr;
  }

  /// Decodes %XX as in URLs, then ~1 as "/" and ~0 as "~".
  static std::string unescaped(std::string_view step) {
    std::string bytes;
    for (size_t i = 0; i < step.size(); ++i) {
      const std::string hex(step.substr(i + 1 < step.size() ? i + 1 : i, 2));
      char* end = nullptr;
      const long byte = std::strtol(hex.c_str(), &end, 16);
      if (step[i] == '%' && hex.size() == 2 && *end == '\0') {
        bytes += static_cast<char>(byte);
        i += 2;
      } else {
        bytes += step[i];
      }
    }
    std::string out;
    for (size_t i = 0; i < bytes.size(); ++i) {
      const char next = i + 1 < bytes.size() ? bytes[i + 1] : '\0';
      const bool escape = bytes[i] == '~' && (next == '0' || next == '1');
      out += escape ? (next == '1' ? '/' : '~') : bytes[i];
      i += escape;
    }
    return out;
  }

  static void add_type(Place place, Object* out) {
    const ChatValue* type = find(out, "type");
    if (!type) {
      const ChatValue* values = find(out, "enum");
      const char* name = values && values->array() && !values->array()->empty()
                             ? type_of(*values->array())
                         : find(out, "properties") ? "object"
                         : find(out, "items")      ? "array"
                                                   : nullptr;
      if (name) out->emplace_back("type", ChatValue(name));
      type = find(out, "type");
    }
    // Templates treat all keywords of an object without properties as its properties.
    if (place == Place::kParameter && is_object_type(type) && !find(out, "properties"))
      out->emplace_back("properties", ChatValue(Object()));
  }

  std::string name_;
  ChatValue tool_;
  const ChatValue* root_ = nullptr;
  std::vector<const ChatValue*> open_;  // the $ref targets that are being expanded
  int depth_ = 0, schemas_ = 0;
};

}  // namespace

ChatValue writable_declaration(const ChatValue& tool) { return Declaration(tool).written(); }

}  // namespace gemtp
