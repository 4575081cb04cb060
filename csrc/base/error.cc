#include "base/error.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "base/utf8.h"

namespace gemtp {

std::string format(const char* fmt, ...) {
  va_list args, again;
  va_start(args, fmt);
  va_copy(again, args);
  const int length = std::vsnprintf(nullptr, 0, fmt, args);
  va_end(args);
  std::string text(length > 0 ? static_cast<size_t>(length) : 0, '\0');
  if (length > 0) std::vsnprintf(text.data(), text.size() + 1, fmt, again);
  va_end(again);
  return text;
}

std::string quoted(const std::string& untrusted, size_t max_bytes) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(untrusted.data());
  std::string out = "'";
  size_t at = 0;
  while (at < untrusted.size()) {
    const Utf8Step step = utf8_step(bytes + at, untrusted.size() - at);
    const size_t length = static_cast<size_t>(step.length);
    if (at + length > max_bytes) {
      out += "…";
      break;
    }
    // Not safe: C0 and C1 controls, DEL, and characters that reorder text or break lines in a
    // terminal.
    const uint32_t c = step.code;
    const bool safe = step.status == Utf8Status::kValid && c >= 0x20 && !(c >= 0x7F && c < 0xA0) &&
                      !(c >= 0x2028 && c <= 0x202E) && !(c >= 0x2066 && c <= 0x2069);
    if (safe) {
      out.append(untrusted, at, length);
    } else {
      for (size_t i = 0; i < length; ++i) out += format("\\x%02X", bytes[at + i]);
    }
    at += length;
  }
  return out + "'";
}

void assert_failed(const char* expression, const char* file, int line) {
  throw Error(ErrorKind::kInternal,
              format("internal error: %s does not hold at %s:%d; please report it with the call "
                     "that led here",
                     expression, file, line));
}

}  // namespace gemtp
