// What a model generates in a chat, taken apart while it comes: thoughts, answer, calls of tools.
//
//   <|channel>thought\n...<channel|>   <|tool_call>call:name{key:<|"|>text<|"|>,n:1}<tool_call|>
//
// The marks are recognised by token, never by their text, which the model may as well write about.
// One exception: models that have thought forget the first mark of a call. Directly behind a
// thought, "call:name{...}" is a call if a function of that name was declared and nothing but the
// end of the call, or of the answer, follows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/stop_strings.h"
#include "text/tokenizer.h"
#include "text/tool_call.h"

namespace gemtp {

enum class ReplyPart {
  kContent,        // of the answer
  kThinking,       // of a thought
  kToolCall,       // a whole call, and its text
  kMalformedCall,  // the text of a call that cannot be read
};
const char* reply_part_name(ReplyPart part);

struct ReplyEvent {
  ReplyPart part;
  std::string text;  // valid UTF-8, never empty
  ToolCall call;     // of kToolCall
};

class ReplyParser {
 public:
  /// prompt: what the reply follows; it may have opened a thought. stop: strings that end the
  /// answer; in thoughts and calls they do not. functions: the names that were declared. Keeps a
  /// reference to the tokenizer.
  ReplyParser(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
              std::vector<std::string> stop, const std::vector<std::string>& functions = {});

  /// What became certain with one token. Never throws for what a model may generate.
  std::vector<ReplyEvent> push(int32_t id);
  /// The rest. An unfinished call is a malformed one.
  std::vector<ReplyEvent> finish();
  /// A stop string has ended the answer.
  bool stopped() const { return stop_.found(); }

 private:
  // kBehindThought: what may become a call without its mark.
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
  StopStrings stop_;
  StreamDecoder decoder_;
  State state_ = State::kContent;
  bool label_ = false;               // still in the line that names the channel
  std::string held_;                 // of a thought: its label, or newlines that may be its end
  std::vector<std::string> begins_;  // of calls: "call:name{"
  std::string call_;                 // kQuoteMark for the quote token
  bool marked_ = true;               // the call has its mark
  bool quoted_ = false;              // inside a string of the call
};

/// The tokens that take a reply apart, and are no text in it.
std::vector<int32_t> reply_marks(const Tokenizer& tokenizer);

/// Whether the latest turn of a prompt ends inside a thought.
bool opens_thought(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt);

}  // namespace gemtp
