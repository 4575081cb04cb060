#include "text/utf8.h"

#include <cstdint>

#include "base/utf8.h"
#include "text/tokenizer.h"

namespace gemtp {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// Appends the complete part of `bytes` to `out`; returns how many bytes were used.
size_t append_valid(std::string_view bytes, std::string* out, bool last) {
  const auto* p = reinterpret_cast<const uint8_t*>(bytes.data());
  size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Step step = utf8_step(p + at, bytes.size() - at);
    if (step.status == Utf8Status::kIncomplete && !last) break;
    const size_t length = static_cast<size_t>(step.length);
    out->append(step.status == Utf8Status::kValid ? bytes.substr(at, length) : kReplacement);
    at += length;
  }
  return at;
}

}  // namespace

void drain_utf8(std::string* pending, std::string* out, bool last) {
  pending->erase(0, append_valid(*pending, out, last));
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  append_valid(bytes, &out, true);
  return out;
}

size_t find_invalid_utf8(std::string_view text) {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(p + at, text.size() - at);
    if (step.status != Utf8Status::kValid) return at;
    at += static_cast<size_t>(step.length);
  }
  return std::string_view::npos;
}

}  // namespace gemtp
