// One timeline: the tokens whose K/V is cached, and the target's outputs of the latest pass.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "decode/choose.h"
#include "model/kv_cache.h"
#include "model/target.h"

namespace gemtp {

/// What the chooser needs of the head.
inline HeadOutput head_output(const Chooser& chooser) {
  return chooser.takes_largest() ? HeadOutput::kBest : HeadOutput::kLogits;
}

class Session {
 public:
  /// max_rows: of one pass; output_rows: of those, the most whose outputs can be asked for.
  Session(const Config& target, Backend& backend, int64_t context, int64_t max_rows,
          int64_t output_rows, bool kv_f16);

  /// Tokens in the cache, position by position.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int64_t length() const { return kv_.length(); }
  const KvCache& kv() const { return kv_; }

  /// How many of the first tokens of `ids` need not be run again.
  int64_t reusable(const std::vector<int32_t>& ids) const;
  /// Keeps positions below `length`. Precondition: kv().can_truncate(length).
  void truncate(int64_t length);

  /// Runs ids[0 .. m) behind the cached tokens; outputs of the last `want` rows are there until the
  /// next call.
  void forward(Target& target, const int32_t* ids, int64_t m, int64_t want, HeadOutput head);

  /// Runs what the cache lacks of ids[0 .. n) in passes of at most `chunk` rows; outputs are of the
  /// last row.
  void prefill(Target& target, const int32_t* ids, int64_t n, int64_t chunk, HeadOutput head);

  /// For measurements: as in KvCache. A session that has jumped shares no prefix with any prompt.
  void fill_with_noise(Backend& backend) { kv_.fill_with_noise(backend); }
  void jump(int64_t length);

  const float* hidden(int64_t row) const { return hidden_.get() + row * hidden_size_; }
  /// The token for `position` that the chooser picks from a row's outputs: HeadOutput::kLogits, or
  /// kBest where that is all it needs.
  int32_t choose(int64_t row, Chooser& chooser, int64_t position,
                 const TokenHistory& history) const;

 private:
  KvCache kv_;
  std::vector<int32_t> tokens_;
  Backend& backend_;
  int64_t hidden_size_, vocab_, output_rows_;
  Buffer hidden_;                // [output_rows, hidden]
  Buffer logits_;                // [output_rows, vocab]; null until wanted
  std::vector<BestLogit> best_;  // [output_rows]
};

}  // namespace gemtp
