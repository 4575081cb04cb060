// The `gemma4` tokenizer: BPE by merge rank over the whole text after ' ' -> U+2581, split only at
// runs of newlines, byte fallback, no prefix space, no other normalisation.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/reader.h"

namespace gemtp {

/// Values of tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

/// Bytes begin .. end of a text.
struct TextRange {
  size_t begin, end;
};

class Tokenizer {
 public:
  /// From any GGUF with a `gemma4` tokenizer (also one that holds only a vocabulary). Error{kFile}
  /// for a vocabulary that contradicts itself: lengths that differ, merges without a space or with
  /// unknown parts or product, ids out of range, malformed or missing byte tokens.
  explicit Tokenizer(const GgufFile& file);
  ~Tokenizer();

  /// Ids of `text`, which must be valid UTF-8 (else Error{kArgument} with the byte offset).
  /// `special`: text that spells a control or user-defined token becomes that token; leave it off
  /// for anything a user or a tool wrote. `add_bos` puts the BOS id in front unless the encoded
  /// text already begins with it.
  std::vector<int32_t> encode(std::string_view text, bool add_bos, bool special) const;

  /// As with `special`, but what touches one of the ranges stays text: those of a chat that its
  /// template did not write itself. literal: ascending, not overlapping.
  std::vector<int32_t> encode_chat(std::string_view text, const std::vector<TextRange>& literal,
                                   bool add_bos) const;

  /// Text of `ids`; incomplete UTF-8 (from byte tokens) becomes U+FFFD. Control tokens are written
  /// out only if `special`. Error{kArgument} for an id outside the vocabulary.
  std::string decode(const std::vector<int32_t>& ids, bool special) const;

  /// The bytes one token stands for when generated: text with U+2581 as space, one raw byte for a
  /// byte token, nothing for control tokens unless `special`. User-defined tokens are text.
  std::string token_bytes(int32_t id, bool special) const;

  const std::string& token_text(int32_t id) const;  // as spelled in the file
  TokenType token_type(int32_t id) const;
  int32_t find(std::string_view token_text) const;  // id or -1

  /// The texts that encode() turns into one token where `special` allows it, by id.
  std::vector<std::string> control_tokens() const;

  /// The first control token that valid UTF-8 spells: what encode() without `special` leaves text.
  /// Empty: none.
  std::string spelled_control(std::string_view text) const;

  int32_t vocab_size() const;
  int32_t bos() const;   // -1 when the file names none
  bool add_bos() const;  // what the file asks for (default true)
  /// Ids that end a generation: the file's eos (and eot) ids, and `<turn|>` and `<|tool_response>`
  /// where the vocabulary has them. Sorted, unique.
  const std::vector<int32_t>& end_tokens() const;
  /// tokenizer.ggml.suppress_tokens: ids that must never be chosen.
  const std::vector<int32_t>& suppressed() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Turns a stream of tokens into a stream of valid UTF-8: bytes of an unfinished character are
/// held back until it is complete; bytes that can never become one turn into U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool special = false);
  std::string push(int32_t id);  // text that became certain
  std::string finish();          // what is left; an unfinished character becomes U+FFFD

 private:
  const Tokenizer& tokenizer_;
  bool special_;
  std::string pending_;
};

/// Offset of the first byte that is not part of valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

}  // namespace gemtp
