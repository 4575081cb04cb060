#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "text/bpe.h"
#include "text/text_index.h"
#include "text/utf8.h"

namespace gemtp {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, stands for ' ' in token texts
constexpr size_t kMaxVocab = size_t{1} << 24;
constexpr size_t kMaxTextBytes = size_t{1} << 30;  // positions are 31 bits wide

/// The byte that `text` names as `<0xNN>`, or -1.
int byte_of(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/// The type of a token from tokenizer.json, which lists only ordinary and added tokens. It does not
/// mark byte tokens, and its added tokens include tags and unused tokens besides the chat format's
/// markers, which look like <|this or that|>.
TokenType type_from_json(std::string_view text, TokenType given) {
  if (given == TokenType::kNormal && byte_of(text) >= 0) return TokenType::kByte;
  const bool marker =
      text.size() > 3 && (text.substr(0, 2) == "<|" || text.substr(text.size() - 2) == "|>");
  return given == TokenType::kUserDefined && !marker ? TokenType::kNormal : given;
}

bool only_white_space(std::string_view text) {
  while (!text.empty()) {
    if (text[0] == ' ' || text[0] == '\n' || text[0] == '\t' || text[0] == '\r') {
      text.remove_prefix(1);
    } else if (text.substr(0, kSpaceMark.size()) == kSpaceMark) {
      text.remove_prefix(kSpaceMark.size());
    } else {
      return false;
    }
  }
  return true;
}

/// The code point that ends at byte `end` > 0 of valid UTF-8.
uint32_t code_before(std::string_view text, size_t end) {
  size_t start = end - 1;
  while ((static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
  return utf8_step(reinterpret_cast<const uint8_t*>(text.data()) + start, end - start).code;
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const GgufFile& file) : path(quoted(file.path(), 4096)) {
    check_model(file);
    load_tokens(file);
    load_types(file);
    load_merges(file);
    load_ids(file);
  }

  // Functions that load the tokenizer. Each throws Error{kFile}.
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::kFile, path + ": " + what);
  }
  void check_model(const GgufFile& file);
  void load_tokens(const GgufFile& file);
  void load_types(const GgufFile& file);
  void load_merges(const GgufFile& file);
  void load_ids(const GgufFile& file);
  int32_t checked_id(const char* key, int64_t id) const;

  /// Whether plain text never becomes this token. True for control, unknown and byte tokens, and
  /// for user-defined tokens unless they are white space, which vocabularies often declare this
  /// way.
  bool is_marker(int32_t id) const { return markers[static_cast<size_t>(id)]; }

  /// Returns the longest marker of at most `limit` bytes with which `text` begins, or -1.
  int32_t marker_at(std::string_view text, size_t limit) const;
  std::vector<int32_t> encode(std::string_view text, bool add_bos, bool special,
                              const std::vector<TextRange>& literal) const;
  void encode_plain(std::string_view text, BpeMerger* merger, std::vector<int32_t>* out) const;
  void encode_line(std::string_view line, BpeMerger* merger, std::vector<int32_t>* out) const;
  void append_bytes(int32_t id, bool special, std::string* out) const;
  size_t checked(int32_t id) const;

  std::string path;  // quoted, for error sentences
  bool types_of_json = false;
  std::vector<std::string> texts;
  std::vector<TokenType> types;
  std::vector<bool> markers;
  std::optional<TextIndex> index;
  MergeTable merges;
  std::array<int32_t, 256> byte_ids;         // of <0xNN>
  std::array<int32_t, 128> ascii_ids;        // of single characters, ' ' as U+2581; -1 for none
  std::unordered_set<uint32_t> before_mark;  // characters that some token has before a U+2581
  // For each first byte, the lengths of the markers that begin with it, longest first.
  std::array<std::vector<size_t>, 256> marker_lengths;
  int32_t bos = -1;
  bool add_bos = true;
  std::vector<int32_t> end_tokens;
  std::vector<int32_t> suppressed;
};

void Tokenizer::Impl::check_model(const GgufFile& file) {
  const std::optional<std::string> model = file.get_string("tokenizer.ggml.model");
  if (!model) fail("the file has no tokenizer: key 'tokenizer.ggml.model' is missing");
  // Ollama's converter uses these names. It takes the types from tokenizer.json, which does not
  // mark byte tokens.
  types_of_json = *model == "llama" && file.get_string("tokenizer.ggml.pre") == "gemma4";
  if (*model != "gemma4" && !types_of_json) {
    fail("the tokenizer is of the model " + quoted(*model) + ", but only 'gemma4' is supported");
  }
}

void Tokenizer::Impl::load_tokens(const GgufFile& file) {
  const auto tokens = file.get_strings("tokenizer.ggml.tokens");
  if (!tokens || tokens->empty()) {
    fail("the tokenizer has no vocabulary: key 'tokenizer.ggml.tokens' is missing or empty");
  }
  if (tokens->size() > kMaxVocab) {
    fail(format("the vocabulary has %zu tokens, but at most %zu are supported", tokens->size(),
                kMaxVocab));
  }
  texts.assign(tokens->begin(), tokens->end());
  index.emplace(texts);
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].empty()) fail(format("token %zu of the vocabulary is empty", i));
    if (find_invalid_utf8(texts[i]) != std::string::npos) {
      fail(format("token %zu of the vocabulary, %s, is not valid UTF-8", i,
                  quoted(texts[i]).c_str()));
    }
    const int32_t first = index->insert(static_cast<int32_t>(i));
    if (first >= 0) {
      fail(format("tokens %d and %zu of the vocabulary have the same text %s", first, i,
                  quoted(texts[i]).c_str()));
    }
    for (size_t at = 1; (at = texts[i].find(kSpaceMark, at)) != std::string::npos; ++at) {
      before_mark.insert(code_before(texts[i], at));
    }
  }
  for (size_t c = 0; c < ascii_ids.size(); ++c) {
    const char character = static_cast<char>(c);
    ascii_ids[c] = index->find(c == ' ' ? kSpaceMark : std::string_view(&character, 1));
  }
}

void Tokenizer::Impl::load_types(const GgufFile& file) {
  const auto values = file.get_ints("tokenizer.ggml.token_type");
  if (!values || values->size() != texts.size()) {
    fail(format("the vocabulary has %zu tokens, but 'tokenizer.ggml.token_type' has %zu entries",
                texts.size(), values ? values->size() : size_t{0}));
  }
  if (const auto scores = file.get_floats("tokenizer.ggml.scores")) {
    if (scores->size() != texts.size()) {
      fail(format("the vocabulary has %zu tokens, but 'tokenizer.ggml.scores' has %zu entries",
                  texts.size(), scores->size()));
    }
  }
  byte_ids.fill(-1);
  types.resize(texts.size());
  markers.resize(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const int64_t value = (*values)[i];
    if (value < 1 || value > 6) {
      fail(format("token %zu of the vocabulary has type %lld, but 1 to 6 are possible", i,
                  static_cast<long long>(value)));
    }
    const std::string& text = texts[i];
    types[i] = static_cast<TokenType>(value);
    if (types_of_json) types[i] = type_from_json(text, types[i]);
    switch (types[i]) {
      case TokenType::kNormal:
      case TokenType::kUnused:
        continue;
      case TokenType::kByte: {
        const int byte = byte_of(text);
        if (byte < 0) {
          fail(
              format("byte token %zu of the vocabulary is spelled %s instead of '<0xNN>' with two "
                     "hexadecimal digits",
                     i, quoted(text).c_str()));
        }
        int32_t& id = byte_ids[static_cast<size_t>(byte)];
        if (id >= 0) fail(format("tokens %d and %zu both stand for byte 0x%02X", id, i, byte));
        id = static_cast<int32_t>(i);
        markers[i] = true;
        continue;
      }
      case TokenType::kUserDefined:
        if (only_white_space(text)) continue;
        break;
      case TokenType::kControl:
      case TokenType::kUnknown:
        break;
    }
    markers[i] = true;
    marker_lengths[static_cast<uint8_t>(text[0])].push_back(text.size());
  }
  for (size_t byte = 0; byte < byte_ids.size(); ++byte) {
    if (byte_ids[byte] < 0) {
      fail(format("the vocabulary has no token of type 'byte' for <0x%02zX>", byte));
    }
  }
  for (std::vector<size_t>& lengths : marker_lengths) {
    std::sort(lengths.begin(), lengths.end(), std::greater<>());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
}

void Tokenizer::Impl::load_merges(const GgufFile& file) {
  const auto lines = file.get_strings("tokenizer.ggml.merges");
  if (!lines) fail("the tokenizer has no merges: key 'tokenizer.ggml.merges' is missing");
  if (lines->size() >= MergeTable::kNone) fail("the tokenizer has more merges than 32 bits count");
  merges = MergeTable(lines->size());
  std::string product;
  for (size_t rank = 0; rank < lines->size(); ++rank) {
    const std::string_view line = (*lines)[rank];
    const auto bad = [&](const char* why) {
      fail(format("merge %zu of the tokenizer, %s, %s", rank, quoted(std::string(line)).c_str(),
                  why));
    };
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string_view::npos) {
      bad("is not two parts with one space between them");
    }
    product.assign(line.substr(0, space));
    product.append(line.substr(space + 1));
    const int32_t left = index->find(line.substr(0, space));
    const int32_t right = index->find(line.substr(space + 1));
    const int32_t whole = index->find(product);
    if (left < 0 || right < 0) bad("has a part that is not in the vocabulary");
    if (whole < 0) bad("makes a text that is not in the vocabulary");
    // Merges from or to markers would let plain text spell one.
    if (is_marker(left) || is_marker(right) || is_marker(whole)) continue;
    if (!merges.insert(left, right, static_cast<uint32_t>(rank), whole)) bad("appears twice");
  }
}

int32_t Tokenizer::Impl::checked_id(const char* key, int64_t id) const {
  if (id < 0 || id >= static_cast<int64_t>(texts.size())) {
    fail(format("key '%s' names token %lld, but the vocabulary has %zu tokens", key,
                static_cast<long long>(id), texts.size()));
  }
  return static_cast<int32_t>(id);
}

void Tokenizer::Impl::load_ids(const GgufFile& file) {
  const auto scalar = [&](const char* key) -> int32_t {
    const auto id = file.get_int(key);
    return id ? checked_id(key, *id) : -1;
  };
  const auto list = [&](const char* key) {
    std::vector<int32_t> ids;
    for (const int64_t id : file.get_ints(key).value_or(std::vector<int64_t>())) {
      ids.push_back(checked_id(key, id));
    }
    return ids;
  };
  bos = scalar("tokenizer.ggml.bos_token_id");
  add_bos = file.get_bool("tokenizer.ggml.add_bos_token").value_or(true);
  suppressed = list("tokenizer.ggml.suppress_tokens");
  end_tokens = list("tokenizer.ggml.eos_token_ids");
  end_tokens.push_back(scalar("tokenizer.ggml.eos_token_id"));
  end_tokens.push_back(scalar("tokenizer.ggml.eot_token_id"));
  for (const char* text : {"<turn|>", "<|tool_response>"}) {
    const int32_t id = index->find(text);
    if (id >= 0 && is_marker(id)) end_tokens.push_back(id);
  }
  // These ids are not used here, but a file in which they are wrong is damaged.
  for (const char* key : {"tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id",
                          "tokenizer.ggml.mask_token_id", "tokenizer.ggml.seperator_token_id"}) {
    scalar(key);
  }
  for (std::vector<int32_t>* ids : {&end_tokens, &suppressed}) {
    std::sort(ids->begin(), ids->end());
    ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
  }
  if (end_tokens[0] < 0) end_tokens.erase(end_tokens.begin());
}

int32_t Tokenizer::Impl::marker_at(std::string_view text, size_t limit) const {
  for (const size_t length : marker_lengths[static_cast<uint8_t>(text[0])]) {
    if (length > text.size() || length > limit) continue;
    const int32_t id = index->find(text.substr(0, length));
    if (id >= 0 && is_marker(id) && types[static_cast<size_t>(id)] != TokenType::kByte) return id;
  }
  return -1;
}

/// Encodes text without markers. No token mixes '\n' with other characters, so runs of newlines are
/// safe places to split. A run that is itself a token becomes that token, whatever its merges would
/// give.
void Tokenizer::Impl::encode_plain(std::string_view text, BpeMerger* merger,
                                   std::vector<int32_t>* out) const {
  while (!text.empty()) {
    const bool newlines = text[0] == '\n';
    const size_t length =
        std::min(text.size(), newlines ? text.find_first_not_of('\n') : text.find('\n'));
    const std::string_view run = text.substr(0, length);
    const int32_t id = newlines ? index->find(run) : -1;
    if (id >= 0 && !is_marker(id)) {
      out->push_back(id);
    } else {
      encode_line(run, merger, out);
    }
    text.remove_prefix(length);
  }
}

/// Splits where no merge can cross: before a U+2581 whose preceding character precedes it in no
/// token, and around characters without a token. This keeps the segments as short as words.
void Tokenizer::Impl::encode_line(std::string_view line, BpeMerger* merger,
                                  std::vector<int32_t>* out) const {
  const auto* p = reinterpret_cast<const uint8_t*>(line.data());
  bool joins_mark = true;  // can a token join the previous character and U+2581?
  for (size_t at = 0; at < line.size();) {
    const Utf8Step step = utf8_step(p + at, line.size() - at);
    const size_t length = static_cast<size_t>(step.length);
    const std::string_view character = line[at] == ' ' ? kSpaceMark : line.substr(at, length);
    const bool is_mark = character == kSpaceMark;
    at += length;
    if (is_mark && !joins_mark) merger->finish(out);
    joins_mark = is_mark || before_mark.count(step.code) > 0;
    const int32_t id = step.code < ascii_ids.size() ? ascii_ids[step.code] : index->find(character);
    if (id >= 0 && !is_marker(id)) {
      merger->add(id);
      continue;
    }
    merger->finish(out);
    for (const char byte : character) out->push_back(byte_ids[static_cast<uint8_t>(byte)]);
  }
  merger->finish(out);
}

void Tokenizer::Impl::append_bytes(int32_t id, bool special, std::string* out) const {
  const size_t i = checked(id);
  const std::string& text = texts[i];
  switch (types[i]) {
    case TokenType::kByte:
      out->push_back(static_cast<char>(byte_of(text)));
      return;
    case TokenType::kControl:
    case TokenType::kUnknown:
      if (special) *out += text;
      return;
    default:
      break;
  }
  for (size_t at = 0; at < text.size();) {
    const size_t mark = std::min(text.size(), text.find(kSpaceMark, at));
    out->append(text, at, mark - at);
    if (mark < text.size()) out->push_back(' ');
    at = mark + kSpaceMark.size();
  }
}

size_t Tokenizer::Impl::checked(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= texts.size()) {
    throw Error(ErrorKind::kArgument,
                format("token id %d is not in the vocabulary, which has ids 0 to %zu", id,
                       texts.size() - 1));
  }
  return static_cast<size_t>(id);
}

std::vector<int32_t> Tokenizer::Impl::encode(std::string_view text, bool add_bos, bool special,
                                             const std::vector<TextRange>& literal) const {
  const size_t invalid = find_invalid_utf8(text);
  if (invalid != std::string_view::npos) {
    throw Error(ErrorKind::kArgument,
                format("the text is not valid UTF-8: byte 0x%02X at offset %zu does not belong",
                       static_cast<uint8_t>(text[invalid]), invalid));
  }
  if (text.size() > kMaxTextBytes) {
    throw Error(ErrorKind::kArgument, format("the text has %zu bytes, but at most %zu can be "
                                             "encoded at once; pass it in pieces",
                                             text.size(), kMaxTextBytes));
  }
  BpeMerger merger(merges);
  std::vector<int32_t> ids;
  size_t plain = 0;  // start of the text since the last marker
  auto range = literal.begin();
  for (size_t at = 0; special && at < text.size();) {
    while (range != literal.end() && range->end <= at) ++range;
    const size_t free = range == literal.end() ? text.size() : range->begin;
    const int32_t marker = free > at ? marker_at(text.substr(at), free - at) : -1;
    if (marker < 0) {
      ++at;
      continue;
    }
    encode_plain(text.substr(plain, at - plain), &merger, &ids);
    ids.push_back(marker);
    at += texts[static_cast<size_t>(marker)].size();
    plain = at;
  }
  encode_plain(text.substr(plain), &merger, &ids);
  if (add_bos && bos >= 0 && (ids.empty() || ids[0] != bos)) ids.insert(ids.begin(), bos);
  return ids;
}

Tokenizer::Tokenizer(const GgufFile& file) : impl_(std::make_unique<Impl>(file)) {}
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_bos, bool special) const {
  return impl_->encode(text, add_bos, special, {});
}

std::vector<int32_t> Tokenizer::encode_chat(std::string_view text,
                                            const std::vector<TextRange>& literal,
                                            bool add_bos) const {
  return impl_->encode(text, add_bos, true, literal);
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool special) const {
  std::string bytes;
  for (const int32_t id : ids) impl_->append_bytes(id, special, &bytes);
  return to_valid_utf8(bytes);
}

std::string Tokenizer::token_bytes(int32_t id, bool special) const {
  std::string bytes;
  impl_->append_bytes(id, special, &bytes);
  return bytes;
}

const std::string& Tokenizer::token_text(int32_t id) const {
  return impl_->texts[impl_->checked(id)];
}
TokenType Tokenizer::token_type(int32_t id) const { return impl_->types[impl_->checked(id)]; }
int32_t Tokenizer::find(std::string_view token_text) const {
  return impl_->index->find(token_text);
}
std::vector<std::string> Tokenizer::control_tokens() const {
  std::vector<std::string> out;
  for (size_t i = 0; i < impl_->texts.size(); ++i) {
    if (impl_->markers[i] && impl_->types[i] != TokenType::kByte) out.push_back(impl_->texts[i]);
  }
  return out;
}
std::string Tokenizer::spelled_control(std::string_view text) const {
  for (size_t at = 0; at < text.size(); ++at) {
    const int32_t id = impl_->marker_at(text.substr(at), text.size() - at);
    if (id < 0) continue;
    // Some chat markers are user-defined, so that replies show them. HTML tags are user-defined
    // too, but are common in ordinary text.
    const std::string& spelled = token_text(id);
    if (token_type(id) == TokenType::kControl || spelled.find('|') != std::string::npos)
      return spelled;
  }
  return "";
}
int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->texts.size()); }
int32_t Tokenizer::bos() const { return impl_->bos; }
bool Tokenizer::add_bos() const { return impl_->add_bos; }
const std::vector<int32_t>& Tokenizer::end_tokens() const { return impl_->end_tokens; }
const std::vector<int32_t>& Tokenizer::suppressed() const { return impl_->suppressed; }

}  // namespace gemtp
