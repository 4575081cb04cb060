// The functions of the C ABI for text: tokens, chats, replies.
#include "api/c/text.h"

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "api/c/boundary.h"
#include "api/c/handles.h"
#include "engine/engine.h"
#include "gemtp.h"
#include "text/chat.h"
#include "text/json.h"
#include "text/reply.h"

namespace gemtp {
namespace {

gemtp_chat_options chat_defaults() {
  gemtp_chat_options o{};
  o.size = sizeof o;
  return o;
}

// Every message has the size of the first one, so that arrays of another version can be traversed.
std::vector<ChatMessage> messages_of(const gemtp_message* messages, size_t count) {
  need_array(messages, count, sizeof *messages, "messages");
  std::vector<ChatMessage> out;
  const auto* at = reinterpret_cast<const char*>(messages);
  for (size_t i = 0; i < count; ++i, at += messages->size) {
    const auto m = complete(at, messages->size, gemtp_message{}, "gemtp_message");
    need(m.role, "the role of a message");
    ChatMessage message;
    message.role = m.role;
    message.content = std::string(text_of(m.text, m.length, "the text of a message"));
    out.push_back(std::move(message));
  }
  return out;
}

// The events of a reply for the caller.
struct Told {
  std::vector<ReplyEvent> events;
  std::vector<std::string> arguments;  // for each event, as JSON
};

// A parser refers to the tokenizer, so this keeps the model alive.
struct Reply {
  std::shared_ptr<Engine> engine;
  std::unique_ptr<ReplyParser> parser;  // guarded by fork_mutex()

  Reply(std::shared_ptr<Engine> e, const std::vector<int32_t>& prompt,
        std::vector<std::string> stop)
      : engine(std::move(e)),
        parser(std::make_unique<ReplyParser>(engine->model().need_tokenizer(), prompt,
                                             std::move(stop))) {}

  /// Calls fn with the parser, which stays unchanged if fn throws.
  template <class Fn>
  Told parse(const Fn& fn) {
    auto next = std::make_unique<ReplyParser>(*parser);
    Told out;
    out.events = fn(*next);
    for (const ReplyEvent& e : out.events)
      out.arguments.push_back(e.part == ReplyPart::kToolCall ? to_json(e.call.arguments) : "");
    parser = std::move(next);
    return out;
  }
};

Handles<gemtp_reply, Reply>& replies() {
  static auto* const all = new Handles<gemtp_reply, Reply>("reply");
  return *all;
}

int32_t part_of(ReplyPart part) {
  switch (part) {
    case ReplyPart::kContent:
      return GEMTP_PART_CONTENT;
    case ReplyPart::kThinking:
      return GEMTP_PART_THINKING;
    case ReplyPart::kToolCall:
      return GEMTP_PART_TOOL_CALL;
    case ReplyPart::kMalformedCall:
      return GEMTP_PART_MALFORMED_CALL;
  }
  return GEMTP_PART_CONTENT;
}

// Reports events to the callback. Returns false if it stops.
bool tell(const Told& told, gemtp_reply_callback on_event, void* user) {
  for (size_t i = 0; i < told.events.size(); ++i) {
    const ReplyEvent& e = told.events[i];
    gemtp_reply_event out{};
    out.size = sizeof out;
    out.part = part_of(e.part);
    out.text = e.text.data();
    out.length = e.text.size();
    if (e.part == ReplyPart::kToolCall) {
      out.tool_name = e.call.name.c_str();
      out.arguments_json = told.arguments[i].c_str();
    }
    if (on_event(&out, user) != 0) return false;
  }
  return true;
}

}  // namespace

std::vector<int32_t> encode(const Engine& engine, std::string_view text, int32_t flags) {
  if (flags & ~(GEMTP_ADD_BOS | GEMTP_PARSE_SPECIAL))
    throw Error(ErrorKind::kArgument,
                format("flags is %d; it is a sum of GEMTP_ADD_BOS and GEMTP_PARSE_SPECIAL", flags));
  return engine.model().need_tokenizer().encode(text, (flags & GEMTP_ADD_BOS) != 0,
                                                (flags & GEMTP_PARSE_SPECIAL) != 0);
}

}  // namespace gemtp

using namespace gemtp;

extern "C" {

gemtp_status gemtp_tokenize(const gemtp_model* model, const char* text, size_t length,
                            int32_t flags, int32_t* ids, size_t capacity, size_t* count,
                            char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto engine = models().get(model);
    copy_out(encode(*engine, text_of(text, length, "text"), flags), ids, capacity, count);
  });
}

gemtp_status gemtp_detokenize(const gemtp_model* model, const int32_t* ids, size_t count,
                              char* text, size_t capacity, size_t* length, char* error,
                              size_t error_size) {
  return guarded(error, error_size, [&] {
    const std::string all =
        models().get(model)->model().need_tokenizer().decode(ids_of(ids, count), false);
    copy_out(all.data(), all.size(), 1, text, capacity, length);
  });
}

gemtp_status gemtp_chat_options_init(gemtp_chat_options* options, size_t size) {
  return guarded(nullptr, 0, [&] { fill(chat_defaults(), options, size, "gemtp_chat_options"); });
}

gemtp_status gemtp_chat_tokens(const gemtp_model* model, const gemtp_message* messages,
                               size_t message_count, const gemtp_chat_options* options,
                               int32_t* ids, size_t capacity, size_t* count, char* error,
                               size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto engine = models().get(model);
    const auto o = complete(options, chat_defaults(), "gemtp_chat_options");
    const Tokenizer& tokenizer = engine->model().need_tokenizer();
    if (!speaks_chat(tokenizer))
      throw Error(ErrorKind::kModel,
                  engine->model().file().quoted_path() +
                      " has no <|turn> in its vocabulary: it was not made for chats; put text "
                      "behind a session and generate");
    ChatRequest request;
    request.messages = messages_of(messages, message_count);
    request.thinking = o.thinking != 0;
    request.generation_prompt = o.no_generation_prompt == 0;
    request.bos = tokenizer.bos() >= 0 ? tokenizer.token_text(tokenizer.bos()) : "";
    const RenderedChat chat = render_chat(request);
    copy_out(tokenizer.encode_chat(chat.text, chat.literal, false), ids, capacity, count);
  });
}

gemtp_status gemtp_reply_open(const gemtp_model* model, const int32_t* ids, size_t count,
                              const char* const* stop, size_t stop_count, gemtp_reply** reply,
                              char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto engine = models().get(model);
    need(reply, "the pointer for the reply");
    const std::vector<int32_t> prompt = ids_of(ids, count);
    if (count) engine->model().check_ids(prompt, 0);
    *reply = replies().add(
        std::make_shared<Reply>(engine, prompt, strings_of(stop, stop_count, "stop")));
  });
}

gemtp_status gemtp_reply_push(gemtp_reply* reply, int32_t id, gemtp_reply_callback on_event,
                              void* user, int32_t* stopped, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto r = replies().get(reply);
    need(reinterpret_cast<const void*>(on_event), "on_event");
    Told told;
    bool stop = false;
    {
      const std::lock_guard<std::mutex> lock(fork_mutex());
      if (id >= 0) {
        r->engine->model().check_ids({id}, 0);
        told = r->parse([&](ReplyParser& parser) { return parser.push(id); });
      }
      stop = r->parser->stopped();
    }
    if (!tell(told, on_event, user)) stop = true;
    if (stopped) *stopped = stop;
  });
}

gemtp_status gemtp_reply_finish(gemtp_reply* reply, gemtp_reply_callback on_event, void* user,
                                char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto r = replies().get(reply);
    need(reinterpret_cast<const void*>(on_event), "on_event");
    Told told;
    {
      const std::lock_guard<std::mutex> lock(fork_mutex());
      told = r->parse([](ReplyParser& parser) { return parser.finish(); });
    }
    tell(told, on_event, user);
  });
}

void gemtp_reply_close(gemtp_reply* reply) { replies().remove(reply); }

}  // extern "C"
