#include "model/kv_cache.h"

#include <algorithm>

#include "base/error.h"

namespace gemtp {
namespace {

int64_t round_up_16(int64_t n) { return (n + 15) / 16 * 16; }

// Stores the same noise in every slot of a layer that lies on the backend.
void fill_layer_with_noise(KvLayers layers, int index, Backend& backend) {
  // The keys are so small that the attention scores of a row stay within a few units of each other,
  // as in a real text: no weight underflows, and none dominates.
  constexpr int64_t kRows = 64;
  constexpr float kKeySize = 0.15f;
  const KvLayer& layer = *layers[static_cast<size_t>(index)];
  const int64_t n = kRows * layer.kv_heads * layer.head_dim, head = layer.head_dim;
  std::vector<float> noise(static_cast<size_t>(n));
  uint32_t x = 1;
  for (float& value : noise) {
    x = x * 1664525u + 1013904223u;  // Numerical Recipes' generator
    value = static_cast<float>(x >> 8) * 0x1p-23f - 1.0f;
  }
  NewHeads heads;
  const Buffer k = backend.alloc(n), v = backend.alloc(n), weight = backend.alloc(head);
  backend.write(std::vector<float>(static_cast<size_t>(head), kKeySize).data(), head, weight.get());
  heads.d = head;
  heads.k = k.get();
  heads.v = v.get();
  heads.k_weight = weight.get();
  heads.eps = 1e-6f;
  PassRows rows(backend, kRows, head / 2, 0);
  std::fill_n(rows.full.angles.cos.host(), kRows * (head / 2), 1.0f);  // not rotated
  for (int64_t at = 0; at < layer.capacity; at += kRows) {
    rows.clear();
    rows.kv = {layers};
    rows.begin_run(0);
    for (int64_t t = at; t < std::min(at + kRows, layer.capacity); ++t)
      rows.positions[rows.add_row()] = static_cast<int32_t>(t);
    backend.write(noise.data(), n, k.get());  // storing changes them
    backend.write(noise.data(), n, v.get());
    backend.send(rows);
    backend.finish_heads(rows, rows.full, index, 0, rows.count, 0, heads);
    backend.wait();
  }
}

}  // namespace

KvCache::KvCache(const Config& target, Split<Storage> storages, int64_t context, int64_t max_rows,
                 bool f16)
    : window_(target.window) {
  // A pass writes up to max_rows positions before its first row reads its window, and rejected rows
  // of the previous pass may have written as far ahead. A ring of window + max_rows slots keeps
  // every key that can still be read.
  const int64_t full = round_up_16(context);
  const int64_t ring = std::min(full, round_up_16(window_ + max_rows));
  for (int i = 0; i < target.kv_layers; ++i) {
    const LayerConfig& l = target.layers[static_cast<size_t>(i)];
    const auto make = [&](Storage& storage) {
      return storage.make_kv(l.kv_heads, l.head_dim, l.sliding ? ring : full, f16);
    };
    const bool on_host = i < storages.placement.host_layers;
    const bool read_on_device = !on_host || i == target.last_kv_layer(l.sliding);
    device_.push_back(read_on_device ? make(storages.device) : nullptr);
    host_.push_back(on_host ? make(storages.host) : nullptr);
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
  for (size_t i = 0; i < sliding_.size(); ++i)
    for (int64_t b = sliding_[i] ? oldest / 16 : 0; b < (length + 15) / 16; ++b) fn(i, b);
}

void KvCache::restored(int64_t length, int64_t oldest) {
  length_ = length;
  lost_ = oldest;
  written_ = round_up_16(length);  // the last block is written whole
}

void KvCache::put_block(size_t i, int64_t b, const uint8_t* block) {
  home(i).put_block(b, block);
  if (copied(i)) device_[i]->put_block(b, block);
}

void KvCache::update_copies(int64_t first, int64_t count) {
  std::vector<uint8_t> block;
  for (size_t i = 0; i < sliding_.size(); ++i) {
    if (!copied(i)) continue;
    block.resize(static_cast<size_t>(home(i).block_bytes()));
    for (int64_t b = first / 16; b < (first + count + 15) / 16; ++b) {
      home(i).get_block(b, block.data());
      device_[i]->put_block(b, block.data());
    }
  }
}

void KvCache::copy(const KvCache& other, int64_t length) {
  GEMTP_ASSERT(other.can_truncate(length) && sliding_.size() == other.sliding_.size());
  std::vector<uint8_t> block;
  for_each_block(length, other.oldest(), [&](size_t i, int64_t b) {
    block.resize(static_cast<size_t>(home(i).block_bytes()));
    other.home(i).get_block(b, block.data());
    put_block(i, b, block.data());
  });
  restored(length, other.oldest());
}

void KvCache::write(const std::function<void(const uint8_t* data, int64_t bytes)>& put) const {
  std::vector<uint8_t> block;
  for_each_block(length_, oldest(), [&](size_t i, int64_t b) {
    block.resize(static_cast<size_t>(home(i).block_bytes()));
    home(i).get_block(b, block.data());
    const int64_t first = sliding_[i] ? oldest() : 0;
    home(i).keep_slots(block.data(), std::clamp<int64_t>(first - 16 * b, 0, 16),
                       std::clamp<int64_t>(length_ - 16 * b, 0, 16));
    put(block.data(), home(i).block_bytes());
  });
}

void KvCache::read(int64_t length, int64_t oldest,
                   const std::function<void(uint8_t* data, int64_t bytes)>& get) {
  std::vector<uint8_t> block;
  for_each_block(length, oldest, [&](size_t i, int64_t b) {
    block.resize(static_cast<size_t>(home(i).block_bytes()));
    get(block.data(), home(i).block_bytes());
    put_block(i, b, block.data());
  });
  restored(length, oldest);
}

int64_t KvCache::bytes() const {
  int64_t n = 0;
  for (const auto* side : {&device_, &host_})
    for (const auto& l : *side)
      if (l) n += l->bytes;
  return n;
}

void KvCache::fill_with_noise(Split<Backend> backends) {
  for (size_t i = 0; i < sliding_.size(); ++i) {
    if (device_[i]) fill_layer_with_noise(device_, static_cast<int>(i), backends.device);
    if (host_[i]) fill_layer_with_noise(host_, static_cast<int>(i), backends.host);
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
