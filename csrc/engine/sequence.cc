#include "engine/sequence.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace gemtp {

Sequence::Sequence(KvCache kv, int64_t context, Lease room)
    : room_(std::move(room)), kv_(std::move(kv)) {
  tokens_.reserve(static_cast<size_t>(context));
}

int64_t Sequence::reusable(const std::vector<int32_t>& ids) const {
  const size_t n = std::min(ids.size(), tokens_.size());
  const auto common =
      std::mismatch(ids.begin(), ids.begin() + static_cast<int64_t>(n), tokens_.begin());
  // The last token is always run again, because its logits are needed.
  const int64_t length =
      std::min<int64_t>(common.first - ids.begin(), static_cast<int64_t>(ids.size()) - 1);
  return kv_.can_truncate(length) ? length : 0;
}

void Sequence::truncate(int64_t length) {
  if (!kv_.can_truncate(length)) length = 0;
  kv_.truncate(length);
  tokens_.resize(static_cast<size_t>(length));
}

void Sequence::copy(const Sequence& other, int64_t length) {
  kv_.copy(other.kv_, length);
  tokens_.assign(other.tokens_.begin(), other.tokens_.begin() + length);
}

void Sequence::read(const std::vector<int32_t>& tokens, int64_t oldest,
                    const std::function<void(uint8_t* data, int64_t bytes)>& get) {
  kv_.read(static_cast<int64_t>(tokens.size()), oldest, get);
  tokens_ = tokens;
}

SequenceRows Sequence::rows(const int32_t* ids, int64_t m, int64_t want, HeadOutput head) {
  return {&kv_, ids, m, want, head};
}

void Sequence::appended(const int32_t* ids, int64_t m) {
  tokens_.insert(tokens_.end(), ids, ids + m);
}

void Sequence::forward(Target& target, const int32_t* ids, int64_t m, int64_t want, HeadOutput head,
                       Outputs& outputs) {
  target.forward(rows(ids, m, want, head), outputs.of(head));
  appended(ids, m);
}

void Sequence::prefill(Target& target, const int32_t* ids, int64_t n, int64_t chunk,
                       HeadOutput head, Outputs& outputs) {
  while (length() < n) {
    const int64_t left = n - length(), m = std::min(chunk, left);
    forward(target, ids + length(), m, m == left ? 1 : 0, head, outputs);
  }
}

void Sequence::jump(int64_t length) {
  kv_.jump(length);
  tokens_.assign(static_cast<size_t>(length), -1);
}

}  // namespace gemtp
