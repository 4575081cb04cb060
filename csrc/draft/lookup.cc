#include "draft/lookup.h"

#include <algorithm>

namespace gemtp {

void Lookup::push(int32_t token) {
  tokens_.push_back(token);
  // The passage that is being copied moves on with the text.
  if (followed_ >= 0) ++followed_;
  const auto n = static_cast<int64_t>(tokens_.size());
  for (size_t i = 0; i < kSizes.size(); ++i) {
    if (n < kSizes[i]) break;
    Ends& ends = seen_[i][key(kSizes[i])];
    ends.before = ends.last;
    ends.last = n;
  }
}

// FNV-1a over the tokens. Collisions of keys do no harm, because match() compares the tokens.
uint64_t Lookup::key(int size) const {
  uint64_t hash = 0xcbf29ce484222325u;
  for (auto it = tokens_.end() - size; it != tokens_.end(); ++it) {
    hash ^= static_cast<uint32_t>(*it);
    hash *= 0x100000001b3u;
  }
  return hash;
}

// Number of tokens before `end` that match the last tokens of the text.
int Lookup::match(int64_t end) const {
  const auto n = static_cast<int64_t>(tokens_.size());
  int length = 0;
  while (length < kLongestMatch && length < end &&
         tokens_[static_cast<size_t>(end - 1 - length)] ==
             tokens_[static_cast<size_t>(n - 1 - length)])
    ++length;
  return length;
}

const Lookup::Draft& Lookup::draft(int limit) {
  const auto n = static_cast<int64_t>(tokens_.size());
  int64_t best = -1;
  draft_.tokens.clear();
  draft_.match = 0;
  const auto consider = [&](int64_t end) {
    if (end <= 0 || end >= n) return;
    // Of equally long matches the first wins: the passage of the latest draft, then later passages.
    if (const int length = match(end); length > draft_.match) {
      draft_.match = length;
      best = end;
    }
  };
  consider(followed_);
  for (size_t i = kSizes.size(); i-- > 0;) {
    if (n < kSizes[i]) continue;
    const auto it = seen_[i].find(key(kSizes[i]));
    if (it != seen_[i].end()) consider(it->second.before);
  }
  if (draft_.match < kSizes.front()) {
    draft_.match = 0;
    return draft_;
  }
  followed_ = best;
  for (int i = 0; i < limit; ++i) {
    const int64_t at = best + i;
    draft_.tokens.push_back(at < n ? tokens_[static_cast<size_t>(at)]
                                   : draft_.tokens[static_cast<size_t>(at - n)]);
  }
  return draft_;
}

}  // namespace gemtp
