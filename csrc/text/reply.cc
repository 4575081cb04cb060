#include "text/reply.h"

#include <algorithm>
#include <locale>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

namespace gemtp {
namespace {

constexpr char kQuoteMark = '\xFF';  // not a byte of UTF-8
constexpr int kMaxNesting = 64;
constexpr std::string_view kThought = "thought\n";

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

std::string_view stripped(std::string_view s) {
  while (!s.empty() && is_blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_blank(s.back())) s.remove_suffix(1);
  return s;
}

/// -?digits[.digits][e[+-]digits], as JSON has it.
std::optional<ChatValue> number(std::string_view s) {
  size_t at = 0;
  const auto digits = [&] {
    const size_t begin = at;
    while (at < s.size() && s[at] >= '0' && s[at] <= '9') ++at;
    return at - begin;
  };
  if (at < s.size() && s[at] == '-') ++at;
  if (digits() == 0) return std::nullopt;
  const bool whole = at == s.size();
  if (at < s.size() && s[at] == '.') {
    ++at;
    if (digits() == 0) return std::nullopt;
  }
  if (at < s.size() && (s[at] == 'e' || s[at] == 'E')) {
    ++at;
    if (at < s.size() && (s[at] == '+' || s[at] == '-')) ++at;
    if (digits() == 0) return std::nullopt;
  }
  if (at != s.size()) return std::nullopt;
  std::istringstream in{std::string(s)};
  in.imbue(std::locale::classic());
  if (whole) {
    int64_t i = 0;
    if (in >> i) return ChatValue(i);
    in.clear();
    in.str(std::string(s));
  }
  double d = 0;
  if (!(in >> d)) return std::nullopt;  // beyond the range of a double
  return ChatValue(d);
}

/// Recursive descent over the text of a call; each function is false where the text does not
/// follow the format.
class CallReader {
 public:
  explicit CallReader(std::string_view text) : text_(text) {}

  bool call(ToolCall* out) {
    skip_blank();
    constexpr std::string_view kCall = "call:";
    if (text_.substr(at_, kCall.size()) != kCall) return false;
    at_ += kCall.size();
    const size_t brace = text_.find('{', at_);
    if (brace == text_.npos) return false;
    const std::string_view name = stripped(text_.substr(at_, brace - at_));
    if (name.empty() || name.find(kQuoteMark) != name.npos) return false;
    out->name = std::string(name);
    at_ = brace;
    if (!value(&out->arguments)) return false;
    skip_blank();
    return at_ == text_.size();
  }

 private:
  bool value(ChatValue* out) {
    skip_blank();
    if (at_ == text_.size()) return false;
    switch (text_[at_]) {
      case kQuoteMark: {
        std::string s;
        if (!quoted(&s)) return false;
        *out = ChatValue(std::move(s));
        return true;
      }
      case '{':
        return object(out);
      case '[':
        return array(out);
      default:
        return bare(out);
    }
  }

  bool quoted(std::string* out) {
    const size_t end = text_.find(kQuoteMark, at_ + 1);
    if (end == text_.npos) return false;
    *out = std::string(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return true;
  }

  bool object(ChatValue* out) {
    ChatValue::Object members;
    const bool read = list('}', [&] {
      std::string key;
      skip_blank();
      if (at_ < text_.size() && text_[at_] == kQuoteMark) {
        if (!quoted(&key)) return false;
        skip_blank();
      } else {
        const size_t end = text_.find_first_of(":{}[],\xFF", at_);
        if (end == text_.npos) return false;
        key = std::string(stripped(text_.substr(at_, end - at_)));
        if (key.empty()) return false;
        at_ = end;
      }
      ChatValue v;
      if (!take(':') || !value(&v)) return false;
      for (const auto& member : members)
        if (member.first == key) return false;
      members.emplace_back(std::move(key), std::move(v));
      return true;
    });
    if (read) *out = ChatValue(std::move(members));
    return read;
  }

  bool array(ChatValue* out) {
    ChatValue::Array items;
    const bool read = list(']', [&] {
      ChatValue v;
      if (!value(&v)) return false;
      items.push_back(std::move(v));
      return true;
    });
    if (read) *out = ChatValue(std::move(items));
    return read;
  }

  /// Elements with commas between them, from the opening bracket to `close`.
  template <class Element>
  bool list(char close, Element element) {
    if (++depth_ > kMaxNesting) return false;
    ++at_;
    skip_blank();
    if (!take(close)) {
      for (;;) {
        if (!element()) return false;
        skip_blank();
        if (take(close)) break;
        if (!take(',')) return false;
      }
    }
    --depth_;
    return true;
  }

  /// A number, true, false, null, or a word that lacks its quotes.
  bool bare(ChatValue* out) {
    const size_t end = std::min(text_.find_first_of(",{}[]\xFF", at_), text_.size());
    const std::string_view word = stripped(text_.substr(at_, end - at_));
    if (word.empty()) return false;
    at_ = end;
    if (word == "true" || word == "false") {
      *out = ChatValue(word == "true");
    } else if (word == "null" || word == "None") {
      *out = ChatValue();
    } else if (auto n = number(word)) {
      *out = std::move(*n);
    } else {
      *out = ChatValue(std::string(word));
    }
    return true;
  }

  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void skip_blank() {
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::vector<int32_t> reply_marks(const Tokenizer& tokenizer) {
  std::vector<int32_t> out;
  for (const char* mark : {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|\"|>"})
    if (const int32_t id = tokenizer.find(mark); id >= 0) out.push_back(id);
  return out;
}

bool opens_thought(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt) {
  const int32_t open = tokenizer.find("<|channel>"), close = tokenizer.find("<channel|>"),
                turn = tokenizer.find("<|turn>");
  for (size_t i = prompt.size(); i-- > 0;) {
    if (prompt[i] == open) return open >= 0;
    if (prompt[i] == close || prompt[i] == turn) return false;
  }
  return false;
}

const char* reply_part_name(ReplyPart part) {
  switch (part) {
    case ReplyPart::kContent:
      return "content";
    case ReplyPart::kThinking:
      return "thinking";
    case ReplyPart::kToolCall:
      return "tool_call";
    case ReplyPart::kMalformedCall:
      return "malformed_call";
  }
  return "";
}

bool parse_tool_call(const std::string& text, ToolCall* call) {
  return CallReader(text).call(call);
}

ReplyParser::ReplyParser(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                         std::vector<std::string> stop)
    : tokenizer_(tokenizer),
      open_channel_(tokenizer.find("<|channel>")),
      close_channel_(tokenizer.find("<channel|>")),
      open_call_(tokenizer.find("<|tool_call>")),
      close_call_(tokenizer.find("<tool_call|>")),
      quote_(tokenizer.find("<|\"|>")),
      stop_(std::move(stop)),
      decoder_(tokenizer) {
  if (opens_thought(tokenizer, prompt))
    state_ = State::kThinking;  // the prompt has written its label too
}

std::vector<ReplyEvent> ReplyParser::push(int32_t id) {
  std::vector<ReplyEvent> out;
  if (stopped()) return out;
  const bool opens_call = id >= 0 && id == open_call_;
  const bool opens_channel = id >= 0 && id == open_channel_;
  if (state_ == State::kCall) {
    if (id >= 0 && id == quote_) {
      decoded(decoder_.finish(), &out);
      call_ += kQuoteMark;
      quoted_ = !quoted_;
      return out;
    }
    if (id >= 0 && id == close_call_ && !quoted_) {
      decoded(decoder_.finish(), &out);
      end_call(true, &out);
      return out;
    }
  }
  if (opens_call || opens_channel) {  // also ends what was unfinished
    decoded(decoder_.finish(), &out);
    if (stopped()) return out;
    if (state_ == State::kCall) end_call(false, &out);
    if (state_ == State::kThinking) end_thinking(&out);
    if (state_ == State::kContent) content(stop_.finish(), &out);
    state_ = opens_call ? State::kCall : State::kThinking;
    label_ = opens_channel;
    return out;
  }
  if (state_ == State::kThinking && id >= 0 && id == close_channel_) {
    decoded(decoder_.finish(), &out);
    end_thinking(&out);
    return out;
  }
  decoded(decoder_.push(id), &out);
  return out;
}

std::vector<ReplyEvent> ReplyParser::finish() {
  std::vector<ReplyEvent> out;
  if (stopped()) return out;
  decoded(decoder_.finish(), &out);
  if (state_ == State::kCall) end_call(false, &out);
  if (state_ == State::kThinking) end_thinking(&out);
  if (!stopped()) content(stop_.finish(), &out);
  return out;
}

void ReplyParser::decoded(const std::string& text, std::vector<ReplyEvent>* out) {
  switch (state_) {
    case State::kContent:
      content(stop_.push(text), out);
      break;
    case State::kThinking:
      thinking(text, out);
      break;
    case State::kCall:
      call_ += text;
      break;
  }
}

void ReplyParser::content(const std::string& text, std::vector<ReplyEvent>* out) {
  if (!text.empty()) out->push_back({ReplyPart::kContent, text, {}});
}

// The label and the newline before the end of a thought are not part of it.
void ReplyParser::thinking(const std::string& text, std::vector<ReplyEvent>* out) {
  held_ += text;
  if (label_) {
    if (held_.size() < kThought.size() && kThought.substr(0, held_.size()) == held_) return;
    if (held_.compare(0, kThought.size(), kThought) == 0) held_.erase(0, kThought.size());
    label_ = false;
  }
  const bool newline = !held_.empty() && held_.back() == '\n';
  const std::string shown = held_.substr(0, held_.size() - newline);
  held_.erase(0, shown.size());
  if (!shown.empty()) out->push_back({ReplyPart::kThinking, shown, {}});
}

void ReplyParser::end_thinking(std::vector<ReplyEvent>* out) {
  // A label without its newline is a label; all else that is held is text or the last newline.
  const bool label = label_ && kThought.substr(0, kThought.size() - 1) == held_;
  if (label_ && !label && !held_.empty()) out->push_back({ReplyPart::kThinking, held_, {}});
  held_.clear();
  label_ = false;
  state_ = State::kContent;
}

void ReplyParser::end_call(bool complete, std::vector<ReplyEvent>* out) {
  ReplyEvent event{ReplyPart::kMalformedCall, "<|tool_call>", {}};
  if (complete && parse_tool_call(call_, &event.call))
    event.part = ReplyPart::kToolCall;
  else
    event.call = {};
  for (const char c : call_) {
    if (c == kQuoteMark)
      event.text += "<|\"|>";
    else
      event.text += c;
  }
  if (complete) event.text += "<tool_call|>";
  out->push_back(std::move(event));
  call_.clear();
  quoted_ = false;
  state_ = State::kContent;
}

}  // namespace gemtp
