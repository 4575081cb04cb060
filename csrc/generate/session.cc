#include "generate/session.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/fork.h"

namespace gemtp {

Session::~Session() {
  end();
  if (sequence_) engine_->sequences().give_back(std::move(sequence_));
}

int64_t Session::cached() const { return sequence() ? sequence()->length() : 0; }

void Session::append(const std::vector<int32_t>& ids) {
  end();
  std::vector<int32_t> all = tokens_;
  all.insert(all.end(), ids.begin(), ids.end());
  if (!ids.empty()) engine_->model().check_ids(all, 0);
  tokens_ = std::move(all);
}

void Session::begin(GenerationParams params) {
  end();
  auto next =
      std::make_shared<Generation>(engine_, tokens_, std::move(params), std::move(sequence_));
  const std::lock_guard<std::mutex> lock(fork_mutex());
  generation_.swap(next);  // the earlier generation is destroyed outside the lock
}

std::vector<Emitted> Session::step(const std::function<void()>& poll) {
  if (!generation_)
    throw Error(ErrorKind::kArgument, "nothing is being generated; begin a generation first");
  const size_t before = tokens_.size();
  std::vector<Emitted> out;
  try {
    out = generation_->step(poll);
    for (const Emitted& e : out) tokens_.push_back(e.id);
  } catch (...) {
    tokens_.resize(before);
    end();
    throw;
  }
  if (generation_->done()) end();
  return out;
}

void Session::cancel() {
  std::shared_ptr<Generation> generation;
  {
    const std::lock_guard<std::mutex> lock(fork_mutex());
    generation = generation_;
  }
  if (generation) generation->cancel();
}

// Drops K/V of tokens that were chosen but not returned.
void Session::end() {
  if (!generation_) return;
  std::unique_ptr<Sequence> sequence = generation_->release();
  if (!sequence) return;
  sequence_ = std::move(sequence);
  sequence_->truncate(std::min(sequence_->length(), static_cast<int64_t>(tokens_.size())));
}

void Session::rewind(int64_t length) {
  if (length < 0 || length > static_cast<int64_t>(tokens_.size()))
    throw Error(ErrorKind::kArgument, format("cannot rewind to %lld tokens: there are %zu",
                                             static_cast<long long>(length), tokens_.size()));
  end();
  tokens_.resize(static_cast<size_t>(length));
  if (sequence_) sequence_->truncate(std::min(sequence_->length(), length));
}

std::unique_ptr<Session> Session::fork() const {
  auto out = std::make_unique<Session>(engine_);
  out->tokens_ = tokens_;
  if (cached() == 0) return out;
  out->sequence_ = engine_->sequences().make();
  out->sequence_->copy(*sequence(), cached());
  return out;
}

}  // namespace gemtp
