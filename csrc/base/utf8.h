// One step through UTF-8, by the Unicode standard's rule of maximal subparts (section 3.9, table
// 3-7): the base of validation, of lossy decoding and of splitting text into code points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace gemtp {

enum class Utf8Status {
  kValid,       // `length` bytes are one code point
  kInvalid,     // `length` bytes are a maximal subpart that can never become a code point
  kIncomplete,  // the text ends inside a code point that more bytes could complete
};

struct Utf8Step {
  Utf8Status status;
  int length;     // bytes looked at, 1 to 4
  uint32_t code;  // the code point when kValid
};

/// Decodes the sequence at `p`; `size` > 0 bytes may be read.
inline Utf8Step utf8_step(const uint8_t* p, size_t size) {
  const uint8_t lead = p[0];
  if (lead < 0x80) return {Utf8Status::kValid, 1, lead};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Status::kInvalid, 1, 0};
  const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte alone rules out overlong forms, surrogates and values above U+10FFFF.
  uint8_t low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  uint32_t code = lead & (0x7Fu >> length);
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) >= size) return {Utf8Status::kIncomplete, i, 0};
    if (p[i] < low || p[i] > high) return {Utf8Status::kInvalid, i, 0};
    code = code << 6 | (p[i] & 0x3Fu);
    low = 0x80, high = 0xBF;
  }
  return {Utf8Status::kValid, length, code};
}

/// Appends a code point, which must not be a surrogate.
inline void append_utf8(uint32_t code, std::string* out) {
  const auto put = [&](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

}  // namespace gemtp
