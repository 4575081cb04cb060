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

/// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin, end;
};

class Tokenizer {
 public:
  /// Reads the tokenizer from any GGUF with a `gemma4` tokenizer, including files that hold only a
  /// vocabulary. Throws Error{kFile} for an inconsistent vocabulary: lengths that differ, merges
  /// without a space or with unknown parts or product, ids out of range, malformed or missing byte
  /// tokens.
  explicit Tokenizer(const GgufFile& file);
  ~Tokenizer();

  /// Returns the ids of `text`, which must be valid UTF-8 (otherwise throws Error{kArgument} with
  /// the byte offset). `special`: text that spells a control or user-defined token becomes that
  /// token; leave it off for anything a user or a tool wrote. `add_bos` puts the BOS id in front
  /// unless the encoded text already begins with it.
  std::vector<int32_t> encode(std::string_view text, bool add_bos, bool special) const;

  /// Encodes like encode() with `special`, but text that overlaps one of the `literal` ranges never
  /// becomes a control token. These are the ranges of a chat that its template did not write
  /// itself, ascending and not overlapping.
  std::vector<int32_t> encode_chat(std::string_view text, const std::vector<TextRange>& literal,
                                   bool add_bos) const;

  /// Returns the text of `ids`; incomplete UTF-8 (from byte tokens) becomes U+FFFD. Control tokens
  /// are written out only if `special`. Throws Error{kArgument} for an id outside the vocabulary.
  std::string decode(const std::vector<int32_t>& ids, bool special) const;

  /// The bytes that one generated token stands for: its text with U+2581 as a space, one raw byte
  /// for a byte token, nothing for a control token unless `special`. User-defined tokens are text.
  std::string token_bytes(int32_t id, bool special) const;

  const std::string& token_text(int32_t id) const;  // as spelled in the file
  TokenType token_type(int32_t id) const;
  int32_t find(std::string_view token_text) const;  // id or -1

  /// The texts that encode() turns into one token if `special` is set, ordered by id.
  std::vector<std::string> control_tokens() const;

  /// Returns the first control token that `text` (valid UTF-8) spells, which encode() leaves as
  /// text unless `special` is set. Empty if there is none.
  std::string spelled_control(std::string_view text) const;

  int32_t vocab_size() const;
  int32_t bos() const;   // -1 if the file has none
  bool add_bos() const;  // as the file says (default true)
  /// Ids that end a generation: the file's eos and eot ids, and `<turn|>` and `<|tool_response>` if
  /// the vocabulary has them. Sorted, unique.
  const std::vector<int32_t>& end_tokens() const;
  /// Ids that must never be chosen (tokenizer.ggml.suppress_tokens).
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
  std::string push(int32_t id);  // returns the text that is now complete
  std::string finish();          // the rest; an unfinished character becomes U+FFFD

 private:
  const Tokenizer& tokenizer_;
  bool special_;
  std::string pending_;
};

/// Offset of the first byte that is not part of valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

}  // namespace gemtp
