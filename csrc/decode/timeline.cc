#include "decode/timeline.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/fork.h"

namespace gemtp {

Timeline::~Timeline() {
  end();
  if (session_) engine_->give_back(std::move(session_));
}

int64_t Timeline::cached() const { return session() ? session()->length() : 0; }

void Timeline::append(const std::vector<int32_t>& ids) {
  end();
  std::vector<int32_t> all = tokens_;
  all.insert(all.end(), ids.begin(), ids.end());
  if (!ids.empty()) engine_->check_ids(all, 0);
  tokens_ = std::move(all);
}

void Timeline::begin(GenerationParams params) {
  end();
  auto next =
      std::make_shared<Generation>(engine_, tokens_, std::move(params), std::move(session_));
  const std::lock_guard<std::mutex> lock(fork_mutex());
  generation_.swap(next);  // the earlier one ends outside of the lock
}

std::vector<Emitted> Timeline::step() {
  if (!generation_)
    throw Error(ErrorKind::kArgument, "nothing is being generated; begin a generation first");
  const size_t before = tokens_.size();
  std::vector<Emitted> out;
  try {
    out = generation_->step();
    for (const Emitted& e : out) tokens_.push_back(e.id);
  } catch (...) {
    tokens_.resize(before);
    end();
    throw;
  }
  if (generation_->done()) end();
  return out;
}

void Timeline::cancel() {
  std::shared_ptr<Generation> generation;
  {
    const std::lock_guard<std::mutex> lock(fork_mutex());
    generation = generation_;
  }
  if (generation) generation->cancel();
}

// K/V of tokens that were chosen but not given goes.
void Timeline::end() {
  if (!generation_ || !generation_->session()) return;
  session_ = generation_->release();
  session_->truncate(std::min(session_->length(), static_cast<int64_t>(tokens_.size())));
}

void Timeline::rewind(int64_t length) {
  if (length < 0 || length > static_cast<int64_t>(tokens_.size()))
    throw Error(ErrorKind::kArgument, format("cannot rewind to %lld tokens: there are %zu",
                                             static_cast<long long>(length), tokens_.size()));
  end();
  tokens_.resize(static_cast<size_t>(length));
  if (session_) session_->truncate(std::min(session_->length(), length));
}

std::unique_ptr<Timeline> Timeline::fork() const {
  auto out = std::make_unique<Timeline>(engine_);
  out->tokens_ = tokens_;
  if (cached() == 0) return out;
  out->session_ = engine_->new_session();
  out->session_->copy(*session(), cached());
  return out;
}

}  // namespace gemtp
