// The fields that blocks are put together from. Codes are unsigned, as they are stored.
#pragma once

#include <cstdint>

#include "base/float16.h"

namespace gemtp {

inline void put_u16(uint8_t* out, uint16_t v) {
  out[0] = static_cast<uint8_t>(v);
  out[1] = static_cast<uint8_t>(v >> 8);
}

/// As f16, which the caller computes with from then on.
inline float put_f16(uint8_t* out, float v) {
  const uint16_t half = gemtp_f32_to_f16(v);
  put_u16(out, half);
  return gemtp_f16_to_f32(half);
}

/// The nearest number that f16 does not take for an infinity: what is fitted to extreme weights may
/// lie beyond the values.
inline float within_f16(float v) {
  constexpr float kLargest = 65504.0f;
  return v < -kLargest ? -kLargest : v > kLargest ? kLargest : v;
}

/// Rounded to f16.
inline float to_f16(float v) { return gemtp_f16_to_f32(gemtp_f32_to_f16(within_f16(v))); }

/// The same, but not towards zero where f16 is coarse: multiples of it reach as far as those of v.
inline float covering_f16(float v) {
  const uint16_t half = gemtp_f32_to_f16(within_f16(v));
  const bool coarse = v > -0x1p-14f && v < 0x1p-14f;
  const float near = gemtp_f16_to_f32(half);
  if (!coarse || (v < 0 ? near <= v : near >= v)) return near;
  return gemtp_f16_to_f32(static_cast<uint16_t>(half + 1));
}

/// 32 codes: byte j holds the low four bits of code j, and above them those of code j + 16.
inline void put_nibbles(uint8_t* out, const uint8_t* codes) {
  for (int j = 0; j < 16; ++j)
    out[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

/// Bit 4 of 32 codes: bit j of a little-endian u32.
inline void put_fifth_bits(uint8_t* out, const uint8_t* codes) {
  for (int byte = 0; byte < 4; ++byte) {
    int bits = 0;
    for (int j = 0; j < 8; ++j) bits |= (codes[8 * byte + j] >> 4 & 1) << j;
    out[byte] = static_cast<uint8_t>(bits);
  }
}

/// 256 codes, 64 at a time: byte j of 32 holds the low four bits of code j, and above them those of
/// code j + 32.
inline void put_nibbles_256(uint8_t* out, const uint8_t* codes) {
  for (int at = 0; at < 256; at += 64)
    for (int j = 0; j < 32; ++j)
      *out++ = static_cast<uint8_t>((codes[at + j] & 15) | (codes[at + 32 + j] & 15) << 4);
}

/// The low two bits of 256 codes, 128 at a time: byte j of 32 holds codes j, j + 32, j + 64, j
/// + 96.
inline void put_pairs_256(uint8_t* out, const uint8_t* codes) {
  for (int at = 0; at < 256; at += 128)
    for (int j = 0; j < 32; ++j) {
      int byte = 0;
      for (int k = 0; k < 4; ++k) byte |= (codes[at + 32 * k + j] & 3) << 2 * k;
      *out++ = static_cast<uint8_t>(byte);
    }
}

/// One bit of each of 256 codes: bit k of byte j is that of code 32 k + j.
inline void put_bits_256(uint8_t* out, const uint8_t* codes, int bit) {
  for (int j = 0; j < 32; ++j) {
    int byte = 0;
    for (int k = 0; k < 8; ++k) byte |= (codes[32 * k + j] >> bit & 1) << k;
    out[j] = static_cast<uint8_t>(byte);
  }
}

}  // namespace gemtp
