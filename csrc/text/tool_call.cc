#include "text/tool_call.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <locale>
#include <sstream>
#include <utility>

#include "base/utf8.h"

namespace gemtp {
namespace {

constexpr int kMaxNesting = 64;
constexpr size_t kMostDigits = 4300;  // of an integer that Python accepts

/// Removes the leading digits of a word; returns how many.
size_t take_digits(std::string_view* word) {
  const size_t count = std::min(word->find_first_not_of("0123456789"), word->size());
  word->remove_prefix(count);
  return count;
}

/// Quotes of texts and of Markdown, none of JSON's or Python's.
constexpr std::array<std::string_view, 7> kOpeningQuotes{"\xE2\x80\x9C",
                                                         "\xE2\x80\x9D",
                                                         "\xE2\x80\x9E",
                                                         "\xE2\x80\x98",
                                                         "\xC2\xAB",
                                                         "\xE3\x80\x8C",
                                                         "`"};  // “ ” „ ‘ « 「 `

enum class Spelling { kWhole, kReal, kText };

/// Classifies a word as a JSON number, -?digits[.digits][e[+-]digits], or text. The only integer
/// part that begins with 0 is 0 itself.
Spelling spelling_of(std::string_view word) {
  if (word.starts_with('-')) word.remove_prefix(1);
  const bool zero = word.starts_with('0');
  const size_t whole = take_digits(&word);
  if (whole == 0 || (zero && whole > 1)) return Spelling::kText;
  if (word.empty()) return Spelling::kWhole;
  if (word.front() == '.') {
    word.remove_prefix(1);
    if (take_digits(&word) == 0) return Spelling::kText;
  }
  if (word.starts_with('e') || word.starts_with('E')) {
    word.remove_prefix(1);
    if (word.starts_with('+') || word.starts_with('-')) word.remove_prefix(1);
    if (take_digits(&word) == 0) return Spelling::kText;
  }
  return word.empty() ? Spelling::kReal : Spelling::kText;
}

bool whole_number(std::string_view word, ChatValue* out) {
  int64_t i = 0;
  if (std::from_chars(word.data(), word.data() + word.size(), i).ec == std::errc()) {
    *out = ChatValue(i);
    return true;
  }
  if (word.size() > kMostDigits) return false;
  *out = ChatValue(BigInteger{std::string(word)});
  return true;
}

bool real_number(std::string_view word, ChatValue* out) {
  std::istringstream in{std::string(word)};
  in.imbue(std::locale::classic());
  double d = 0;
  in >> d;
  if (in.fail() && std::abs(d) >= 1) return false;  // too large; a number too small is no error
  *out = ChatValue(d);
  return true;
}

/// Whether a word is NaN or an infinity in the spelling of JSON libraries or Python, which JSON
/// cannot express.
bool is_not_finite(std::string_view word) {
  if (word.starts_with('+') || word.starts_with('-')) word.remove_prefix(1);
  return word == "NaN" || word == "nan" || word == "inf" || word == "Infinity";
}

/// Whether a word begins a Python expression that this reader does not support: a tuple or a call
/// that continues after a comma or bracket, or a string with a prefix (u'...').
bool begins_python(std::string_view word, bool goes_on) {
  if (goes_on &&
      std::count(word.begin(), word.end(), '(') > std::count(word.begin(), word.end(), ')'))
    return true;
  const size_t prefix = word.find_first_not_of("bBfFrRuU");
  if (prefix == 0 || prefix > 2 || prefix == word.npos || word[prefix] != '\'') return false;
  return word.ends_with('\'') || std::count(word.begin(), word.end(), '\'') % 2 == 1;
}

/// Recursive descent over the text of a call; each function returns false if the text does not
/// follow the format.
class CallReader {
 public:
  CallReader(std::string_view text, bool repeats) : text_(text), repeats_(repeats) {}

  bool call(ToolCall* out) {
    skip_blanks();
    constexpr std::string_view kCall = "call:";
    if (text_.substr(at_, kCall.size()) != kCall) return false;
    at_ += kCall.size();
    const size_t brace = text_.find('{', at_);
    if (brace == text_.npos) return false;
    const std::string_view name = without_blanks(text_.substr(at_, brace - at_));
    if (name.empty() || name.find_first_of("\"'\xFF") != name.npos) return false;
    out->name = std::string(name);
    at_ = brace;
    return object(&out->arguments);
  }

  /// Number of bytes read so far.
  size_t at() const { return at_; }

 private:
  bool value(ChatValue* out) {
    skip_blanks();
    if (at_ == text_.size()) return false;
    if (text_[at_] == '{') return object(out);
    if (text_[at_] == '[') return array(out);
    if (!at_quote()) return word(out);
    std::string s;
    if (!quoted(&s)) return false;
    *out = ChatValue(std::move(s));
    return true;
  }

  bool at_quote() const {
    return at_ < text_.size() &&
           (text_[at_] == kQuoteMark || text_[at_] == '"' || text_[at_] == '\'');
  }

  /// Reads a quoted string. Text between quote tokens is literal; between other quotes it has
  /// escapes.
  bool quoted(std::string* out) {
    const char quote = text_[at_++];
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == quote) return true;
      if (c == kQuoteMark) return false;
      if (c != '\\' || quote == kQuoteMark)
        *out += c;
      else if (!escape(out))
        return false;
    }
    return false;
  }

  /// Reads what follows a backslash, as in JSON and Python. A backslash that escapes nothing is
  /// kept, as in Python. Characters by name (\N{BULLET}) would need a table of all names and are
  /// not read.
  bool escape(std::string* out) {
    if (at_ == text_.size()) return false;
    const char c = text_[at_++];
    constexpr std::string_view kEscaped = "\"'\\/abfnrtv", kMeant = "\"'\\/\a\b\f\n\r\t\v";
    if (const size_t i = kEscaped.find(c); i != kEscaped.npos) {
      *out += kMeant[i];
      return true;
    }
    if (c == 'x' || c == 'u' || c == 'U') return code_point(c == 'x' ? 2 : c == 'u' ? 4 : 8, out);
    if (c == 'N' && text_.substr(at_, 1) == "{") return false;
    if (c >= '0' && c <= '7') return octal(out);
    *out += '\\';
    --at_;
    return c != kQuoteMark;
  }

  bool code_point(size_t digits, std::string* out) {
    uint32_t code = 0;
    if (!hexadecimal(digits, &code)) return false;
    if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {  // high surrogate
      at_ += 2;
      uint32_t low = 0;
      if (!hexadecimal(4, &low) || low < 0xDC00 || low > 0xDFFF) return false;
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if ((code >= 0xD800 && code <= 0xDFFF) || code > 0x10FFFF) return false;
    append_utf8(code, out);
    return true;
  }

  /// Reads an octal escape of one to three digits, the first of which has been passed.
  bool octal(std::string* out) {
    const std::string_view s = text_.substr(--at_, 3);
    const size_t digits = std::min(s.find_first_not_of("01234567"), s.size());
    uint32_t code = 0;
    std::from_chars(s.data(), s.data() + digits, code, 8);
    at_ += digits;
    append_utf8(code, out);
    return true;
  }

  bool hexadecimal(size_t digits, uint32_t* out) {
    const std::string_view s = text_.substr(at_, digits);
    const auto read = std::from_chars(s.data(), s.data() + s.size(), *out, 16);
    at_ += s.size();
    return s.size() == digits && read.ec == std::errc() && read.ptr == s.data() + s.size();
  }

  bool object(ChatValue* out) {
    ChatValue::Object members;
    const bool read = list('}', [&] {
      std::string key;
      ChatValue v;
      if (!this->key(&key) || !take(':') || !value(&v)) return false;
      const auto same = std::find_if(members.begin(), members.end(),
                                     [&](const auto& member) { return member.first == key; });
      if (same != members.end()) {
        same->second = std::move(v);
        return repeats_;
      }
      members.emplace_back(std::move(key), std::move(v));
      return true;
    });
    if (read) *out = ChatValue(std::move(members));
    return read;
  }

  bool key(std::string* out) {
    skip_blanks();
    if (at_quote()) {
      if (!quoted(out)) return false;
      skip_blanks();
      return true;
    }
    return bare(":,{}[]\xFF", out);
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

  /// Reads elements separated by commas, from the opening bracket to `close`.
  template <class Element>
  bool list(char close, Element element) {
    if (++depth_ > kMaxNesting) return false;
    ++at_;
    skip_blanks();
    if (!take(close)) {
      for (;;) {
        if (!element()) return false;
        skip_blanks();
        if (take(close)) break;
        if (!take(',')) return false;
      }
    }
    --depth_;
    return true;
  }

  /// Reads text without quotes. Text with a double quote inside, or that begins with a quote of
  /// another script, is rejected, because its end is ambiguous.
  bool bare(const char* ends, std::string* out) {
    const size_t end = std::min(text_.find_first_of(ends, at_), text_.size());
    *out = std::string(without_blanks(text_.substr(at_, end - at_)));
    at_ = end;
    const bool quote = std::any_of(kOpeningQuotes.begin(), kOpeningQuotes.end(),
                                   [out](std::string_view q) { return out->starts_with(q); });
    return !out->empty() && !quote && out->find('"') == out->npos;
  }

  /// Reads a number, true, false, null, or a word that lacks its quotes.
  bool word(ChatValue* out) {
    std::string w;
    if (!bare(",{}[]\xFF", &w) || is_not_finite(w)) return false;
    const bool goes_on =
        at_ < text_.size() && std::string_view(",[{").find(text_[at_]) != text_.npos;
    if (begins_python(w, goes_on)) return false;
    const Spelling spelling = spelling_of(w);
    if (spelling == Spelling::kWhole) return whole_number(w, out);
    if (spelling == Spelling::kReal) return real_number(w, out);
    if (w == "true" || w == "True" || w == "false" || w == "False")
      *out = ChatValue(w == "true" || w == "True");
    else if (w == "null" || w == "None")
      *out = ChatValue();
    else
      *out = ChatValue(std::move(w));
    return true;
  }

  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void skip_blanks() {
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
  }

  std::string_view text_;
  const bool repeats_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::string_view without_blanks(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

bool parse_tool_call(std::string_view text, ToolCall* call, bool repeats) {
  CallReader reader(text, repeats);
  return reader.call(call) && without_blanks(text.substr(reader.at())).empty();
}

size_t end_of_tool_call(std::string_view text) {
  CallReader reader(text, false);
  ToolCall call;
  return reader.call(&call) ? reader.at() : 0;
}

}  // namespace gemtp
