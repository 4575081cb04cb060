// Writes the fields of which blocks consist. Codes are unsigned, as stored.
#pragma once

#include <cstdint>

#include "base/float16.h"

namespace gemtp {

inline void put_u16(uint8_t* out, uint16_t v) {
  out[0] = static_cast<uint8_t>(v);
  out[1] = static_cast<uint8_t>(v >> 8);
}

/// Writes v as f16 and returns the rounded value, for the caller to compute with.
inline float put_f16(uint8_t* out, float v) {
  const uint16_t half = gemtp_f32_to_f16(v);
  put_u16(out, half);
  return gemtp_f16_to_f32(half);
}

/// Clamps v to the finite range of f16: a scale fitted to extreme weights may exceed it.
inline float within_f16(float v) {
  constexpr float kLargest = 65504.0f;
  return v < -kLargest ? -kLargest : v > kLargest ? kLargest : v;
}

/// Rounds v to f16, clamped to its finite range.
inline float to_f16(float v) { return gemtp_f16_to_f32(gemtp_f32_to_f16(within_f16(v))); }

/// Like to_f16, but where f16 is coarse it never rounds towards zero, so multiples of the result
/// reach as far as those of v.
inline float covering_f16(float v) {
  const uint16_t half = gemtp_f32_to_f16(within_f16(v));
  const bool coarse = v > -0x1p-14f && v < 0x1p-14f;
  const float near = gemtp_f16_to_f32(half);
  if (!coarse || (v < 0 ? near <= v : near >= v)) return near;
  return gemtp_f16_to_f32(static_cast<uint16_t>(half + 1));
}

/// Packs 32 codes: byte j holds the low four bits of code j and, above them, those of code j + 16.
inline void put_nibbles(uint8_t* out, const uint8_t* codes) {
  for (int j = 0; j < 16; ++j)
    out[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

/// Packs bit 4 of 32 codes into a little-endian u32; code j goes to bit j.
inline void put_fifth_bits(uint8_t* out, const uint8_t* codes) {
  for (int byte = 0; byte < 4; ++byte) {
    int bits = 0;
    for (int j = 0; j < 8; ++j) bits |= (codes[8 * byte + j] >> 4 & 1) << j;
    out[byte] = static_cast<uint8_t>(bits);
  }
}

/// Packs 256 codes, 64 at a time: byte j of 32 holds the low four bits of code j and, above them,
/// those of code j + 32.
inline void put_nibbles_256(uint8_t* out, const uint8_t* codes) {
  for (int at = 0; at < 256; at += 64)
    for (int j = 0; j < 32; ++j)
      *out++ = static_cast<uint8_t>((codes[at + j] & 15) | (codes[at + 32 + j] & 15) << 4);
}

/// Packs the low two bits of 256 codes, 128 at a time: byte j of 32 holds codes j, j + 32, j + 64
/// and j + 96.
inline void put_pairs_256(uint8_t* out, const uint8_t* codes) {
  for (int at = 0; at < 256; at += 128)
    for (int j = 0; j < 32; ++j) {
      int byte = 0;
      for (int k = 0; k < 4; ++k) byte |= (codes[at + 32 * k + j] & 3) << 2 * k;
      *out++ = static_cast<uint8_t>(byte);
    }
}

/// Packs one bit of each of 256 codes: bit k of byte j belongs to code 32 k + j.
inline void put_bits_256(uint8_t* out, const uint8_t* codes, int bit) {
  for (int j = 0; j < 32; ++j) {
    int byte = 0;
    for (int k = 0; k < 8; ++k) byte |= (codes[32 * k + j] >> bit & 1) << k;
    out[j] = static_cast<uint8_t>(byte);
  }
}

}  // namespace gemtp
