#include "api/python/parts.h"

#include "base/error.h"
#include "engine/engine.h"
#include "text/chat.h"
#include "text/reply.h"
#include "text/tool_schema.h"

namespace py = pybind11;

namespace gemtp {
namespace {

constexpr int kMaxNesting = 100;

/// Converts plain Python data, as made by gemtp_native.chat.messages.
ChatValue value_of(const py::handle& o, int depth = 0) {
  if (depth > kMaxNesting) {
    throw Error(ErrorKind::kArgument,
                format("a value is nested more than %d deep; simplify it", kMaxNesting));
  }
  if (o.is_none()) return ChatValue();
  if (py::isinstance<py::bool_>(o)) return ChatValue(o.cast<bool>());
  if (py::isinstance<py::int_>(o)) {
    int overflow = 0;
    const long long i = PyLong_AsLongLongAndOverflow(o.ptr(), &overflow);
    if (overflow != 0) return ChatValue(BigInteger{py::str(o).cast<std::string>()});
    return ChatValue(static_cast<int64_t>(i));
  }
  if (py::isinstance<py::float_>(o)) return ChatValue(o.cast<double>());
  if (py::isinstance<py::str>(o)) return ChatValue(o.cast<std::string>());
  if (py::isinstance<py::dict>(o)) {
    ChatValue::Object out;
    for (const auto& [key, value] : py::reinterpret_borrow<py::dict>(o))
      out.emplace_back(key.cast<std::string>(), value_of(value, depth + 1));
    return ChatValue(std::move(out));
  }
  if (py::isinstance<py::list>(o) || py::isinstance<py::tuple>(o)) {
    ChatValue::Array out;
    for (const py::handle item : o) out.push_back(value_of(item, depth + 1));
    return ChatValue(std::move(out));
  }
  throw Error(ErrorKind::kArgument, std::string("a value is a ") + Py_TYPE(o.ptr())->tp_name +
                                        "; pass what JSON can hold");
}

py::object object_of(const ChatValue& v) {
  if (const bool* b = v.boolean()) return py::bool_(*b);
  if (const int64_t* i = v.integer()) return py::int_(*i);
  if (const BigInteger* i = v.big_integer()) {
    PyObject* number = PyLong_FromString(i->digits.c_str(), nullptr, 10);
    if (!number) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(number);
  }
  if (const double* d = v.real()) return py::float_(*d);
  if (const std::string* s = v.string()) return py::str(*s);
  if (const ChatValue::Array* a = v.array()) {
    py::list out;
    for (const ChatValue& item : *a) out.append(object_of(item));
    return out;
  }
  if (const ChatValue::Object* o = v.object()) {
    py::dict out;
    for (const auto& [key, value] : *o) out[py::str(key)] = object_of(value);
    return out;
  }
  return py::none();
}

[[noreturn]] void refuse(const py::handle& o, const char* wanted) {
  throw Error(ErrorKind::kArgument, std::string("a part of a message is a ") +
                                        Py_TYPE(o.ptr())->tp_name + "; it must be " + wanted);
}

std::string text_of(const py::handle& o) {
  if (!py::isinstance<py::str>(o)) refuse(o, "text");
  return o.cast<std::string>();
}

py::object member(const py::handle& dict, const char* key) {
  if (!py::isinstance<py::dict>(dict)) refuse(dict, "a dict");
  const py::dict d = py::reinterpret_borrow<py::dict>(dict);
  return d.contains(key) ? py::reinterpret_borrow<py::object>(d[key]) : py::none();
}

std::string name_of(const py::handle& dict, const char* missing) {
  const py::object name = member(dict, "name");
  return name.is_none() ? missing : text_of(name);
}

ChatMessage message_of(const py::handle& o) {
  ChatMessage m;
  m.role = text_of(member(o, "role"));
  const py::object content = member(o, "content");
  if (py::isinstance<py::str>(content)) {
    m.content = text_of(content);
  } else if (!content.is_none()) {
    std::vector<std::string> parts;
    for (const py::handle part : content) parts.push_back(text_of(member(part, "text")));
    m.content = std::move(parts);
  }
  if (const py::object preface = member(o, "preface"); !preface.is_none())
    m.preface = text_of(preface);
  const py::object calls = member(o, "tool_calls");
  if (!calls.is_none()) {
    for (const py::handle call : calls) {
      const py::object function = member(call, "function");
      m.tool_calls.push_back({name_of(function, ""), value_of(member(function, "arguments"))});
    }
  }
  const py::object responses = member(o, "tool_responses");
  if (!responses.is_none()) {
    for (const py::handle r : responses)
      m.tool_responses.push_back({name_of(r, "unknown"), value_of(member(r, "response"))});
  }
  return m;
}

py::list events(const std::vector<ReplyEvent>& from) {
  py::list out;
  for (const ReplyEvent& e : from) {
    out.append(
        py::make_tuple(reply_part_name(e.part), e.text, e.call.name, object_of(e.call.arguments)));
  }
  return out;
}

// A parser that keeps the tokenizer alive to which it refers.
struct OwningParser {
  OwningParser(std::shared_ptr<Tokenizer> t, const std::vector<int32_t>& prompt,
               std::vector<std::string> stop, const std::vector<std::string>& functions,
               bool masked)
      : tokenizer(std::move(t)), parser(*tokenizer, prompt, std::move(stop), functions, masked) {}

  const std::shared_ptr<Tokenizer> tokenizer;
  ReplyParser parser;
};

}  // namespace

void bind_chat(py::module_& m) {
  m.def(
      "render_chat",
      [](const py::list& messages, const py::list& tools, bool thinking, bool generation_prompt) {
        ChatRequest request;
        for (const py::handle message : messages) request.messages.push_back(message_of(message));
        for (const py::handle tool : tools) request.tools.push_back(value_of(tool));
        request.thinking = thinking;
        request.generation_prompt = generation_prompt;
        const RenderedChat out = render_chat(request);
        std::vector<std::pair<size_t, size_t>> literal;
        for (const TextRange& r : out.literal) literal.emplace_back(r.begin, r.end);
        return py::make_tuple(out.text, literal);
      },
      py::arg("messages"), py::arg("tools"), py::arg("thinking"), py::arg("generation_prompt"),
      "Gemma 4's own format: the text, and the byte ranges of what is not the format's.");
  m.def(
      "writable_declaration",
      [](const py::dict& tool) { return object_of(writable_declaration(value_of(tool))); },
      py::arg("tool"), "The declaration of a tool in the form that Gemma's templates can write.");
  Class<OwningParser>(m, "ReplyParser")
      .def(py::init([](std::shared_ptr<Tokenizer> tokenizer, const std::vector<int32_t>& prompt,
                       std::vector<std::string> stop, const std::vector<std::string>& functions,
                       bool masked) {
             return std::make_unique<OwningParser>(std::move(tokenizer), prompt, std::move(stop),
                                                   functions, masked);
           }),
           py::arg("tokenizer"), py::arg("prompt"), py::arg("stop"),
           py::arg("functions") = std::vector<std::string>(), py::arg("masked") = false)
      .def("push", [](OwningParser& p, int32_t id) { return events(p.parser.push(id)); })
      .def("finish", [](OwningParser& p) { return events(p.parser.finish()); })
      .def_property_readonly("stopped", [](const OwningParser& p) { return p.parser.stopped(); });
}

}  // namespace gemtp
