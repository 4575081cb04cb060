// A sequence for the target: tokens and their K/V.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/outputs.h"
#include "model/kv_cache.h"
#include "model/target.h"

namespace gemtp {

class Sequence {
 public:
  /// Holds a resource that is returned when the last copy is destroyed.
  using Lease = std::shared_ptr<void>;

  /// room: the part of a budget that the K/V cache takes.
  explicit Sequence(KvCache kv, int64_t context, Lease room = {});

  /// Place of the guest that has the sequence; see SequencePool.
  Lease guest;

  /// The tokens in the cache, by position.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int64_t length() const { return kv_.length(); }
  const KvCache& kv() const { return kv_; }

  /// Number of leading tokens of `ids` that need not be run again.
  int64_t reusable(const std::vector<int32_t>& ids) const;
  /// Keeps positions below `length`, or nothing if K/V that they need has been overwritten.
  void truncate(int64_t length);
  /// Becomes a copy of the first `length` positions of `other`. Precondition:
  /// other.kv().can_truncate(length).
  void copy(const Sequence& other, int64_t length);
  /// Reads K/V like KvCache::read(); the sequence then holds `tokens`.
  void read(const std::vector<int32_t>& tokens, int64_t oldest,
            const std::function<void(uint8_t* data, int64_t bytes)>& get);

  /// Returns ids[0 .. m) as rows of a pass after the cached tokens. appended() must be called after
  /// the pass.
  SequenceRows rows(const int32_t* ids, int64_t m, int64_t want, HeadOutput head);
  void appended(const int32_t* ids, int64_t m);

  /// Runs a pass for this sequence alone; outputs of the last `want` rows go to `outputs` from row
  /// 0 on.
  void forward(Target& target, const int32_t* ids, int64_t m, int64_t want, HeadOutput head,
               Outputs& outputs);
  /// Runs those of ids[0 .. n) that the cache does not have, in passes of at most `chunk` rows;
  /// outputs are computed for the last row.
  void prefill(Target& target, const int32_t* ids, int64_t n, int64_t chunk, HeadOutput head,
               Outputs& outputs);

  /// For measurements, like those of KvCache. A sequence that has jumped shares no prefix with any
  /// prompt.
  void fill_with_noise(Split<Backend> backends) { kv_.fill_with_noise(backends); }
  void jump(int64_t length);

 private:
  Lease room_;
  KvCache kv_;
  std::vector<int32_t> tokens_;  // one per K/V position; capacity for the context
};

}  // namespace gemtp
