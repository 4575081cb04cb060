// K and V of one sequence: a full-length cache for every full-attention layer that owns K/V, and a
// ring for every such sliding layer. They lie where their layer lies. If the last such layer of a
// type lies on the host, the device has a copy of its K/V, for the layers that share them and for
// the drafter.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/split.h"

namespace gemtp {

class KvCache {
 public:
  /// context: the cache holds positions 0 .. context - 1. max_rows: the most rows written in one
  /// pass.
  KvCache(const Config& target, Split<Storage> storages, int64_t context, int64_t max_rows,
          bool f16);

  /// By layer; null where a layer's K/V are not there.
  KvLayers on_device() const { return device_; }
  KvLayers on_host() const { return host_; }
  /// Copies what layers on the host have stored at positions first .. first + count - 1 to where
  /// the device reads it.
  void update_copies(int64_t first, int64_t count);

  /// Positions 0 .. length() - 1 are valid.
  int64_t length() const { return length_; }
  void advance(int64_t rows);

  /// Whether the sequence can continue from positions 0 .. length - 1: nothing that a sliding layer
  /// still needs has been overwritten by later positions, including those of rejected drafts.
  bool can_truncate(int64_t length) const;
  /// Forgets positions from `length` on. Always possible for the rows of the last pass.
  void truncate(int64_t length);

  int64_t bytes() const;

  /// The sliding layers no longer hold positions below this.
  int64_t oldest() const { return ring_ ? std::max(lost_, written_ - ring_) : 0; }

  /// Copies the first `length` positions of `other`, a cache of the same model and type.
  /// Preconditions: other.can_truncate(length), and length <= this context.
  void copy(const KvCache& other, int64_t length);

  /// Whether a cache of `length` positions that can be continued may have this `oldest`.
  bool plausible(int64_t length, int64_t oldest) const {
    return length >= 0 && oldest >= 0 && oldest <= std::max<int64_t>(0, length - window_ + 1) &&
           (ring_ > 0 || oldest == 0);
  }

  /// Write the cache as blocks of bytes (KvLayer) in a fixed order, and read it back, given
  /// `length` and `oldest` of the cache that wrote them. Exceptions of the callbacks pass through.
  void write(const std::function<void(const uint8_t* data, int64_t bytes)>& put) const;
  void read(int64_t length, int64_t oldest,
            const std::function<void(uint8_t* data, int64_t bytes)>& get);

  /// For measurements, which do not depend on the keys and values: fills every slot of every layer
  /// with noise, so that jump() can be called with any length.
  void fill_with_noise(Split<Backend> backends);
  /// Treats positions 0 .. length - 1 as written. Precondition: length <= context.
  void jump(int64_t length);

 private:
  template <class Fn>
  void for_each_block(int64_t length, int64_t oldest, const Fn& fn) const;
  void restored(int64_t length, int64_t oldest);
  bool copied(size_t i) const { return host_[i] && device_[i]; }
  /// Where the layer stores its K/V.
  KvLayer& home(size_t i) const { return host_[i] ? *host_[i] : *device_[i]; }
  void put_block(size_t i, int64_t b, const uint8_t* block);

  std::vector<std::unique_ptr<KvLayer>> device_, host_;  // [kv_layers]
  std::vector<bool> sliding_;                            // [kv_layers]
  int64_t window_ = 0;
  int64_t ring_ = 0;  // slots of a sliding layer; 0: no sliding layer
  int64_t length_ = 0;
  int64_t lost_ = 0;     // positions below this were never in the rings
  int64_t written_ = 0;  // end of the positions written, including rejected ones
};

/// Bytes of K and V that a row at this position reads in all layers of the target.
int64_t kv_read_bytes(const Config& target, int64_t position, bool f16);

}  // namespace gemtp
