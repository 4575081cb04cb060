// A 64-bit fingerprint of bytes. It distinguishes files and detects damage, but is no defence
// against attackers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gemtp {

/// FNV-1a (Fowler, Noll, Vo).
class Hash64 {
 public:
  void add(const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    for (size_t i = 0; i < size; ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3u;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace gemtp
