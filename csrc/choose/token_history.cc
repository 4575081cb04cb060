#include "choose/token_history.h"

#include "base/error.h"

namespace gemtp {

void TokenHistory::count(int32_t id) { ++counts_[id]; }

void TokenHistory::uncount(int32_t id) {
  const auto it = counts_.find(id);
  GEMTP_ASSERT(it != counts_.end());
  if (--it->second == 0) counts_.erase(it);
}

void TokenHistory::push(int32_t id) {
  tokens_.push_back(id);
  count(id);
  if (last_n_ >= 0 && size() > last_n_) uncount(tokens_[tokens_.size() - 1 - last_n_]);
  if (constraint_) constraint_->push(id);
}

void TokenHistory::pop() {
  GEMTP_ASSERT(!tokens_.empty());
  if (last_n_ >= 0 && size() > last_n_) count(tokens_[tokens_.size() - 1 - last_n_]);
  uncount(tokens_.back());
  tokens_.pop_back();
  if (constraint_) constraint_->pop();
}

}  // namespace gemtp
