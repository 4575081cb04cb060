// Maps token texts to ids: open addressing with a hash tag per slot, so that a miss seldom touches
// a text.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace gemtp {

class TextIndex {
 public:
  /// Every call reads `texts`, which must outlive the index; at most 2^30 texts.
  explicit TextIndex(const std::vector<std::string>& texts) : texts_(texts) {
    size_t slots = 16;
    while (slots < 2 * texts.size()) slots *= 2;
    slots_.resize(slots);
  }

  /// Adds texts[id]. Returns the id that already has this text, or -1.
  int32_t insert(int32_t id) {
    const std::string_view text = texts_[static_cast<size_t>(id)];
    const uint64_t hash = hash_of(text);
    size_t at = hash & (slots_.size() - 1);
    for (; slots_[at].id >= 0; at = (at + 1) & (slots_.size() - 1)) {
      if (matches(slots_[at], hash, text)) return slots_[at].id;
    }
    slots_[at] = {static_cast<uint32_t>(hash >> 32), id};
    return -1;
  }

  /// Returns the id of `text`, or -1.
  int32_t find(std::string_view text) const {
    const uint64_t hash = hash_of(text);
    size_t at = hash & (slots_.size() - 1);
    for (; slots_[at].id >= 0; at = (at + 1) & (slots_.size() - 1)) {
      if (matches(slots_[at], hash, text)) return slots_[at].id;
    }
    return -1;
  }

 private:
  struct Slot {
    uint32_t tag = 0;  // high half of the hash
    int32_t id = -1;
  };

  bool matches(const Slot& slot, uint64_t hash, std::string_view text) const {
    return slot.tag == hash >> 32 && texts_[static_cast<size_t>(slot.id)] == text;
  }

  static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93ull;
    return h ^ h >> 32;
  }

  static uint64_t hash_of(std::string_view text) {
    uint64_t h = text.size() * 0x9E3779B97F4A7C15ull;
    size_t at = 0;
    for (; text.size() - at > 8; at += 8) {
      uint64_t word;
      std::memcpy(&word, text.data() + at, 8);
      h = mix(h ^ word) * 0x9E3779B97F4A7C15ull;
    }
    uint64_t word = 0;
    if (at < text.size()) std::memcpy(&word, text.data() + at, text.size() - at);
    return mix(mix(h ^ word) * 0x9E3779B97F4A7C15ull);
  }

  const std::vector<std::string>& texts_;
  std::vector<Slot> slots_;
};

}  // namespace gemtp
