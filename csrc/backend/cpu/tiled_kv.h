// K/V of one layer in the layout of kernels.h, one K/V head after another, in any memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "backend/backend.h"

namespace gemtp {

class TiledKv : public KvLayer {
 public:
  bool f16 = true;
  int64_t element() const { return f16 ? 2 : 4; }
  int64_t columns() const { return (head_dim + 15) / 16; }  // columns of 16 head dims in the values
  /// Bytes of the keys of one head, and of its values.
  int64_t key_bytes() const { return capacity * head_dim * element(); }
  int64_t value_bytes() const { return capacity * columns() * 16 * element(); }

  int64_t block_bytes() const override {
    return kv_heads * (head_dim + columns() * 16) * 16 * element();
  }

  void keep_slots(uint8_t* block, int64_t first, int64_t end) const override {
    const auto clear = [this](uint8_t* at, int64_t n) {
      std::memset(at, 0, static_cast<size_t>(n * element()));
    };
    for (int64_t head = 0; head < kv_heads; ++head) {
      for (int64_t d = 0; d < head_dim; ++d, block += 16 * element()) {  // 16 slots of a dimension
        clear(block, first);
        clear(block + end * element(), 16 - end);
      }
      for (int64_t c = 0; c < columns(); ++c)  // 16 dimensions of a slot
        for (int64_t slot = 0; slot < 16; ++slot, block += 16 * element()) {
          const bool kept = slot >= first && slot < end;
          const int64_t dims = kept ? std::min<int64_t>(16, head_dim - c * 16) : 0;
          clear(block + dims * element(), 16 - dims);
        }
    }
  }

 protected:
  /// Calls keys(offset, bytes) or values(offset, bytes) for each part of block b, in a fixed order.
  template <class Keys, class Values>
  void for_each_part(int64_t b, const Keys& keys, const Values& values) const {
    const int64_t slot = b * 16 % capacity;
    for (int64_t head = 0; head < kv_heads; ++head) {
      keys(head * key_bytes() + slot * head_dim * element(), 16 * head_dim * element());
      for (int64_t c = 0; c < columns(); ++c)
        values(head * value_bytes() + (c * capacity + slot) * 16 * element(), 16 * 16 * element());
    }
  }
};

}  // namespace gemtp
