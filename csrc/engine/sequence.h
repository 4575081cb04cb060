// A sequence as the target sees it: tokens and their K/V.
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
  /// Something of another's that is given back when its last copy goes.
  using Lease = std::shared_ptr<void>;

  /// room: what the K/V cache takes of a budget.
  explicit Sequence(KvCache kv, int64_t context, Lease room = {});

  /// Of the guest that has it: see SequencePool.
  Lease guest;

  /// Tokens in the cache, position by position.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int64_t length() const { return kv_.length(); }
  const KvCache& kv() const { return kv_; }

  /// How many of the first tokens of `ids` need not be run again.
  int64_t reusable(const std::vector<int32_t>& ids) const;
  /// Keeps positions below `length`, or nothing if what they need is gone.
  void truncate(int64_t length);
  /// Becomes what `other` is behind its first `length` positions. Precondition:
  /// other.kv().can_truncate(length).
  void copy(const Sequence& other, int64_t length);
  /// As KvCache::read(): the first of `tokens` are in the cache.
  void read(const std::vector<int32_t>& tokens, int64_t oldest,
            const std::function<void(uint8_t* data, int64_t bytes)>& get);

  /// ids[0 .. m) as rows of a pass behind the cached tokens. After it: appended().
  SequenceRows rows(const int32_t* ids, int64_t m, int64_t want, HeadOutput head);
  void appended(const int32_t* ids, int64_t m);

  /// A pass of its own: outputs of the last `want` rows go to `outputs` from row 0 on.
  void forward(Target& target, const int32_t* ids, int64_t m, int64_t want, HeadOutput head,
               Outputs& outputs);
  /// Runs what the cache lacks of ids[0 .. n) in passes of at most `chunk` rows; outputs are of the
  /// last row.
  void prefill(Target& target, const int32_t* ids, int64_t n, int64_t chunk, HeadOutput head,
               Outputs& outputs);

  /// For measurements: as in KvCache. A sequence that has jumped shares no prefix with any prompt.
  void fill_with_noise(Backend& backend) { kv_.fill_with_noise(backend); }
  void jump(int64_t length);

 private:
  Lease room_;
  KvCache kv_;
  std::vector<int32_t> tokens_;  // as many as K/V; never allocates: there is room for the context
};

}  // namespace gemtp
