// Splits a model's reply in a chat, while it is generated, into thoughts, answer and tool calls.
//
//   <|channel>thought\n...<channel|>   <|tool_call>call:name{key:<|"|>text<|"|>,n:1}<tool_call|>
//
// The marks are recognised by token id, never by their text, because the model may also write about
// them. One exception: after a thought, models sometimes forget the opening mark of a call.
// Directly after a thought, "call:name{...}" is a call if a function of that name was declared and
// nothing follows but the end of the call or of the answer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/stop_strings.h"
#include "text/tokenizer.h"
#include "text/tool_call.h"

namespace gemtp {

enum class ReplyPart {
  kContent,        // text of the answer
  kThinking,       // text of a thought
  kToolCall,       // a complete call, and its text
  kMalformedCall,  // the text of a call that cannot be read
};
const char* reply_part_name(ReplyPart part);

struct ReplyEvent {
  ReplyPart part;
  std::string text;  // valid UTF-8, never empty
  ToolCall call;     // set for kToolCall
};

class ReplyParser {
 public:
  /// prompt: the tokens before the reply; they may have opened a thought. stop: strings that end
  /// the answer, but not thoughts or calls. functions: names of the declared functions. masked:
  /// calls follow a grammar, which cannot count keys, so that they may repeat one. Keeps a
  /// reference to the tokenizer.
  ReplyParser(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
              std::vector<std::string> stop, const std::vector<std::string>& functions = {},
              bool masked = false);

  /// Adds a token and returns the events that it completes. Never throws, whatever a model
  /// generates.
  std::vector<ReplyEvent> push(int32_t id);
  /// Ends the reply and returns the remaining events. An unfinished call is reported as malformed.
  std::vector<ReplyEvent> finish();
  /// Whether a stop string has ended the answer.
  bool stopped() const { return stop_.found(); }

 private:
  // kBehindThought: directly after a thought, where a call may begin without its mark.
  enum class State { kContent, kThinking, kBehindThought, kCall };
  void decoded(const std::string& text, std::vector<ReplyEvent>* out);
  void content(const std::string& text, std::vector<ReplyEvent>* out);
  void thinking(const std::string& text, std::vector<ReplyEvent>* out);
  void behind_thought(std::vector<ReplyEvent>* out);
  void check_unmarked(std::vector<ReplyEvent>* out);
  void end_thinking(std::vector<ReplyEvent>* out);
  void end_call(bool complete, std::vector<ReplyEvent>* out);
  void end_part(std::vector<ReplyEvent>* out);
  std::string taken_call();

  const Tokenizer& tokenizer_;
  int32_t open_channel_, close_channel_, open_call_, close_call_, quote_;  // ids, -1: none
  bool masked_;
  StopStrings stop_;
  StreamDecoder decoder_;
  State state_ = State::kContent;
  bool label_ = false;               // still within the line that names the channel
  std::string held_;                 // text of a thought held back: label or final newline
  std::vector<std::string> begins_;  // beginnings of calls: "call:name{"
  std::string call_;                 // text of the call, with kQuoteMark for the quote token
  bool marked_ = true;               // the call began with its mark
  bool quoted_ = false;              // inside a string of the call
};

/// The tokens that separate the parts of a reply and are not text in it.
std::vector<int32_t> reply_marks(const Tokenizer& tokenizer);

/// Whether the latest turn of a prompt ends inside a thought.
bool opens_thought(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt);

}  // namespace gemtp
