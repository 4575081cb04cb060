#include "model/kv_cache.h"

#include <algorithm>

#include "base/error.h"

namespace gemtp {
namespace {

int64_t round_up_16(int64_t n) { return (n + 15) / 16 * 16; }

}  // namespace

KvCache::KvCache(const Config& target, Storage& storage, int64_t context, int64_t max_rows,
                 bool f16)
    : window_(target.window) {
  // A pass writes up to max_rows positions before its first row reads its window, and rejected rows
  // of the previous pass may have written as far ahead. A ring of window + max_rows slots keeps
  // every key that can still be read.
  const int64_t full = round_up_16(context);
  const int64_t ring = std::min(full, round_up_16(window_ + max_rows));
  for (int i = 0; i < target.kv_layers; ++i) {
    const LayerConfig& l = target.layers[static_cast<size_t>(i)];
    layers_.push_back(storage.make_kv(l.kv_heads, l.head_dim, l.sliding ? ring : full, f16));
    sliding_.push_back(l.sliding);
    if (l.sliding) ring_ = ring;
  }
}

void KvCache::advance(int64_t rows) {
  length_ += rows;
  written_ = std::max(written_, length_);
}

bool KvCache::can_truncate(int64_t length) const {
  if (length < 0 || length > length_) return false;
  // The next row, at position `length`, reads back to length - window + 1. A position p is intact
  // as long as position p + ring has not been written.
  return length == 0 || std::max<int64_t>(0, length - window_ + 1) >= oldest();
}

void KvCache::truncate(int64_t length) {
  GEMTP_ASSERT(can_truncate(length));
  length_ = length;
  if (length == 0) lost_ = written_ = 0;
}

// Calls fn for the blocks of 16 positions that hold `length` positions; in sliding layers only
// those from `oldest` on.
template <class Fn>
void KvCache::for_each_block(int64_t length, int64_t oldest, const Fn& fn) const {
  for (size_t i = 0; i < layers_.size(); ++i)
    for (int64_t b = sliding_[i] ? oldest / 16 : 0; b < (length + 15) / 16; ++b) fn(i, b);
}

void KvCache::restored(int64_t length, int64_t oldest) {
  length_ = length;
  lost_ = oldest;
  written_ = round_up_16(length);  // the last block is written whole
}

void KvCache::copy(const KvCache& other, int64_t length) {
  GEMTP_ASSERT(other.can_truncate(length) && layers_.size() == other.layers_.size());
  std::vector<uint8_t> block;
  for_each_block(length, other.oldest(), [&](size_t i, int64_t b) {
    block.resize(static_cast<size_t>(layers_[i]->block_bytes()));
    other.layers_[i]->get_block(b, block.data());
    layers_[i]->put_block(b, block.data());
  });
  restored(length, other.oldest());
}

void KvCache::write(const std::function<void(const uint8_t* data, int64_t bytes)>& put) const {
  std::vector<uint8_t> block;
  for_each_block(length_, oldest(), [&](size_t i, int64_t b) {
    block.resize(static_cast<size_t>(layers_[i]->block_bytes()));
    layers_[i]->get_block(b, block.data());
    put(block.data(), layers_[i]->block_bytes());
  });
}

void KvCache::read(int64_t length, int64_t oldest,
                   const std::function<void(uint8_t* data, int64_t bytes)>& get) {
  std::vector<uint8_t> block;
  for_each_block(length, oldest, [&](size_t i, int64_t b) {
    block.resize(static_cast<size_t>(layers_[i]->block_bytes()));
    get(block.data(), layers_[i]->block_bytes());
    layers_[i]->put_block(b, block.data());
  });
  restored(length, oldest);
}

int64_t KvCache::bytes() const {
  int64_t n = 0;
  for (const auto& l : layers_) n += l->bytes;
  return n;
}

void KvCache::fill_with_noise(Backend& backend) {
  // The keys are so small that the attention scores of a row stay within a few units of each other,
  // as in a real text: no weight underflows, and none dominates.
  constexpr int64_t kRows = 64;
  constexpr float kKeySize = 0.15f;
  int64_t width = 0, head = 0;  // width of the widest layer, and of the widest head
  for (const auto& l : layers_) {
    width = std::max(width, l->kv_heads * l->head_dim);
    head = std::max(head, l->head_dim);
  }
  std::vector<float> noise(static_cast<size_t>(kRows * width));
  uint32_t x = 1;
  for (float& value : noise) {
    x = x * 1664525u + 1013904223u;  // Numerical Recipes' generator
    value = static_cast<float>(x >> 8) * 0x1p-23f - 1.0f;
  }
  const Buffer k = backend.alloc(kRows * width), v = backend.alloc(kRows * width);
  const Buffer weight = backend.alloc(head);
  backend.write(std::vector<float>(static_cast<size_t>(head), kKeySize).data(), head, weight.get());
  PassRows rows(backend, kRows, head / 2, 0);
  std::fill_n(rows.full.angles.cos.host(), kRows * (head / 2), 1.0f);  // not rotated
  for (size_t i = 0; i < layers_.size(); ++i) {
    const int64_t n = kRows * layers_[i]->kv_heads * layers_[i]->head_dim;
    for (int64_t at = 0; at < layers_[i]->capacity; at += kRows) {
      rows.clear();
      rows.kv = {layers_};
      rows.begin_run(0);
      for (int64_t t = at; t < std::min(at + kRows, layers_[i]->capacity); ++t)
        rows.positions[rows.add_row()] = static_cast<int32_t>(t);
      backend.write(noise.data(), n, k.get());  // storing changes them
      backend.write(noise.data(), n, v.get());
      backend.send(rows);
      NewHeads heads;
      heads.d = layers_[i]->head_dim;
      heads.k = k.get();
      heads.v = v.get();
      heads.k_weight = weight.get();
      heads.eps = 1e-6f;
      backend.finish_heads(rows, rows.full, static_cast<int>(i), 0, rows.count, 0, heads);
      backend.wait();
    }
  }
}

void KvCache::jump(int64_t length) {
  length_ = written_ = length;
  lost_ = 0;
}

int64_t kv_read_bytes(const Config& target, int64_t position, bool f16) {
  int64_t bytes = 0;
  for (const LayerConfig& l : target.layers) {
    const int64_t keys = l.sliding ? std::min(position + 1, target.window) : position + 1;
    bytes += 2 * keys * l.kv_heads * l.head_dim * (f16 ? 2 : 4);
  }
  return bytes;
}

}  // namespace gemtp
