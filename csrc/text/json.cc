#include "text/json.h"

#include <charconv>
#include <cmath>
#include <string_view>

namespace gemtp {
namespace {

void append_string(std::string_view s, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  *out += '"';
  for (const char c : s) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      *out += '\\';
      *out += c;
    } else if (c == '\n') {
      *out += "\\n";
    } else if (c == '\t') {
      *out += "\\t";
    } else if (byte < 0x20) {
      *out += "\\u00";
      *out += kHex[byte >> 4];
      *out += kHex[byte & 15];
    } else {
      *out += c;
    }
  }
  *out += '"';
}

// std::to_chars writes the fewest digits that give the same double, and ignores the locale's
// decimal comma.
void append_real(double d, std::string* out) {
  if (!std::isfinite(d)) {
    *out += "null";
    return;
  }
  char digits[32];
  const std::to_chars_result end = std::to_chars(digits, digits + sizeof digits, d);
  const std::string_view text(digits, static_cast<size_t>(end.ptr - digits));
  *out += text;
  if (text.find_first_of(".e") == std::string_view::npos) *out += ".0";  // keeps it a real number
}

void append(const ChatValue& v, std::string* out) {
  if (v.is_null()) *out += "null";
  if (const bool* b = v.boolean()) *out += *b ? "true" : "false";
  if (const int64_t* i = v.integer()) *out += std::to_string(*i);
  if (const BigInteger* i = v.big_integer()) *out += i->digits;
  if (const double* d = v.real()) append_real(*d, out);
  if (const std::string* s = v.string()) append_string(*s, out);
  if (const ChatValue::Array* a = v.array()) {
    *out += '[';
    for (size_t i = 0; i < a->size(); ++i) {
      if (i) *out += ',';
      append((*a)[i], out);
    }
    *out += ']';
  }
  if (const ChatValue::Object* o = v.object()) {
    *out += '{';
    for (size_t i = 0; i < o->size(); ++i) {
      if (i) *out += ',';
      append_string((*o)[i].first, out);
      *out += ':';
      append((*o)[i].second, out);
    }
    *out += '}';
  }
}

}  // namespace

std::string to_json(const ChatValue& value) {
  std::string out;
  append(value, &out);
  return out;
}

}  // namespace gemtp
