#include "text/reply.h"

#include <string_view>
#include <utility>

namespace gemtp {
namespace {

constexpr std::string_view kThought = "thought\n";

enum class Match { kNone, kPart, kWhole };

/// Whether the text begins with one of `begins`, or could do so once it continues.
Match match(std::string_view text, const std::vector<std::string>& begins) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  Match out = Match::kNone;
  for (const std::string& begin : begins) {
    if (text.starts_with(begin)) return Match::kWhole;
    if (begin.starts_with(text)) out = Match::kPart;
  }
  return out;
}

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

ReplyParser::ReplyParser(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                         std::vector<std::string> stop, const std::vector<std::string>& functions,
                         bool masked)
    : tokenizer_(tokenizer),
      open_channel_(tokenizer.find("<|channel>")),
      close_channel_(tokenizer.find("<channel|>")),
      open_call_(tokenizer.find("<|tool_call>")),
      close_call_(tokenizer.find("<tool_call|>")),
      quote_(tokenizer.find("<|\"|>")),
      masked_(masked),
      stop_(std::move(stop)),
      decoder_(tokenizer) {
  for (const std::string& name : functions) begins_.push_back("call:" + name + "{");
  if (opens_thought(tokenizer, prompt))
    state_ = State::kThinking;  // the label is part of the prompt
  else if (!prompt.empty() && prompt.back() == close_channel_ && close_channel_ >= 0)
    state_ = State::kBehindThought;
}

std::vector<ReplyEvent> ReplyParser::push(int32_t id) {
  std::vector<ReplyEvent> out;
  if (stopped()) return out;
  const bool opens_call = id >= 0 && id == open_call_;
  const bool opens_channel = id >= 0 && id == open_channel_;
  if (state_ == State::kCall && id >= 0 && (id == quote_ || (id == close_call_ && !quoted_))) {
    decoded(decoder_.finish(), &out);
    if (state_ == State::kCall) {
      if (id == close_call_) {
        end_call(true, &out);
      } else {
        call_ += kQuoteMark;
        quoted_ = !quoted_;
      }
      return out;
    }
  }
  if (opens_call || opens_channel) {
    end_part(&out);
    if (stopped()) return out;
    state_ = opens_call ? State::kCall : State::kThinking;
    label_ = opens_channel;
    return out;
  }
  if (state_ == State::kThinking && id >= 0 && id == close_channel_) {
    decoded(decoder_.finish(), &out);
    end_thinking(&out);
    state_ = State::kBehindThought;
    return out;
  }
  decoded(decoder_.push(id), &out);
  return out;
}

std::vector<ReplyEvent> ReplyParser::finish() {
  std::vector<ReplyEvent> out;
  if (stopped()) return out;
  end_part(&out);
  return out;
}

// Ends the current part, because another part begins or the reply ends.
void ReplyParser::end_part(std::vector<ReplyEvent>* out) {
  decoded(decoder_.finish(), out);
  if (state_ == State::kCall) end_call(false, out);
  if (state_ == State::kThinking) end_thinking(out);
  if (state_ == State::kBehindThought) content(stop_.push(taken_call()), out);
  state_ = State::kContent;
  if (!stopped()) content(stop_.finish(), out);
}

void ReplyParser::decoded(const std::string& text, std::vector<ReplyEvent>* out) {
  switch (state_) {
    case State::kContent:
      content(stop_.push(text), out);
      break;
    case State::kThinking:
      thinking(text, out);
      break;
    case State::kBehindThought:
      call_ += text;
      behind_thought(out);
      break;
    case State::kCall:
      call_ += text;
      if (!marked_ && text.find_first_not_of(" \n\t\r") != text.npos) check_unmarked(out);
      break;
  }
}

void ReplyParser::behind_thought(std::vector<ReplyEvent>* out) {
  const Match found = match(call_, begins_);
  if (found == Match::kPart) return;
  state_ = found == Match::kWhole ? State::kCall : State::kContent;
  if (found == Match::kNone) return content(stop_.push(taken_call()), out);
  marked_ = false;
  check_unmarked(out);
}

// If other text follows a call without its mark, it is not a call.
void ReplyParser::check_unmarked(std::vector<ReplyEvent>* out) {
  const std::string_view text = without_blanks(call_);
  if (quoted_ || text.find('}') == text.npos) return;
  const size_t end = end_of_tool_call(text);
  if (end != 0 && end != text.size()) end_call(false, out);
}

/// Returns the text of what turned out not to be a call, and resets the call.
std::string ReplyParser::taken_call() {
  std::string text;
  for (const char c : call_) {
    if (c == kQuoteMark)
      text += "<|\"|>";
    else
      text += c;
  }
  call_.clear();
  quoted_ = false;
  marked_ = true;
  state_ = State::kContent;
  return text;
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
  // If only a label without its newline is held, drop it; other held text is part of the thought,
  // except a final newline.
  const bool label = label_ && kThought.substr(0, kThought.size() - 1) == held_;
  if (label_ && !label && !held_.empty()) out->push_back({ReplyPart::kThinking, held_, {}});
  held_.clear();
  label_ = false;
  state_ = State::kContent;
}

void ReplyParser::end_call(bool complete, std::vector<ReplyEvent>* out) {
  const bool marked = marked_;
  ReplyEvent event{ReplyPart::kMalformedCall, marked ? "<|tool_call>" : "", {}};
  if ((complete || !marked) && parse_tool_call(call_, &event.call, masked_))
    event.part = ReplyPart::kToolCall;
  else
    event.call = {};
  event.text += taken_call();
  if (complete) event.text += "<tool_call|>";
  if (marked || event.part == ReplyPart::kToolCall)
    out->push_back(std::move(event));
  else
    content(stop_.push(event.text), out);
}

}  // namespace gemtp
