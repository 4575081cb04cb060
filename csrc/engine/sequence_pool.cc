#include "engine/sequence_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <list>
#include <new>
#include <utility>

#include "backend/cpu/measuring_storage.h"
#include "base/cpu_info.h"
#include "base/error.h"
#include "base/fork.h"

namespace gemtp {
namespace {

// By default, K/V caches take at most half of the memory that is free once the model is loaded, and
// no more than this many full caches.
constexpr int64_t kFullCaches = 16;

// An earlier sequence with at most this many tokens beyond the common prefix is reused instead of
// copied.
constexpr int64_t kReprocessedTokens = 64;

// Interval at which a waiting guest calls its `poll` function.
constexpr std::chrono::milliseconds kPollInterval{50};

// Bytes of the K/V cache of one sequence.
struct CacheBytes {
  int64_t device = 0, host = 0;
  int64_t total() const { return device + host; }
};

CacheBytes cache_bytes(const OpenedModel& model) {
  MeasuringStorage device, host;
  const EngineOptions& o = model.options();
  const KvCache cache(model.config(), {device, host, model.placement()}, model.context(),
                      o.max_rows(), o.kv_f16);
  return {device.kv(), host.kv()};
}

constexpr uint64_t kNoThread = 0;

// A number for each thread of the process. (A std::thread::id is given again once its thread has
// ended, and a guest may outlive the thread that began it.)
uint64_t this_thread_number() {
  static std::atomic<uint64_t> latest{kNoThread};
  static thread_local const uint64_t number = ++latest;
  return number;
}

std::string megabytes(int64_t bytes) {
  const double mb = static_cast<double>(bytes) * 1e-6;
  return format(mb < 10 ? "%.2f MB" : "%.0f MB", mb);
}

int64_t budget_or_default(int64_t given, OpenedModel& model) {
  if (given) return given;
  const CacheBytes each = cache_bytes(model);
  int64_t budget = kFullCaches * each.total();
  const auto keep_within = [&](int64_t part, const Backend& backend) {
    const double half = static_cast<double>(backend.available()) / 2;  // 0: unknown
    if (half > 0 && part > 0)
      budget = std::min(budget, static_cast<int64_t>(half * static_cast<double>(each.total()) /
                                                     static_cast<double>(part)));
  };
  keep_within(each.device, model.backend());
  keep_within(each.host, model.backend().host());
  return std::max(each.total(), budget);
}

}  // namespace

struct SequencePool::State {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t changes = 0;                         // counts changes that may let a waiting guest go on
  int64_t used = 0;                             // bytes of K/V in use
  std::vector<std::unique_ptr<Sequence>> idle;  // latest last
  int lent = 0;  // idle sequences that a call has taken out to copy them: it brings them back

  /// A guest that waits, on any thread, or has a sequence. Threads are this_thread_number()s.
  struct Place {
    const Guest* guest;
    uint64_t thread;    // the guest's; `guest` may be gone once it has a sequence
    uint64_t asleep;    // the thread that waits; kNoThread: the guest has a sequence
    bool denied;        // there was no memory for it, or for one before it
    bool lost = false;  // its thread does not exist in this process
  };
  std::list<Place> places;  // in order of arrival
  uint32_t forks = fork_count();

  void change() {
    ++changes;
    changed.notify_all();
  }

  bool is_first(const Guest& guest) const {
    const auto first = std::find_if(places.begin(), places.end(),
                                    [](const Place& p) { return p.asleep != kNoThread; });
    return first->guest == &guest;
  }

  /// Whether some guest waits for memory, and not just for its turn to take what is there.
  bool someone_is_denied() const {
    return std::any_of(places.begin(), places.end(),
                       [](const Place& p) { return p.asleep != kNoThread && p.denied; });
  }

  /// Whether some guest has a sequence and its thread does not wait here, so that it will finish.
  bool someone_is_at_work() const {
    const auto sleeps = [this](uint64_t thread) {
      return std::any_of(places.begin(), places.end(),
                         [&](const Place& p) { return p.asleep == thread; });
    };
    return std::any_of(places.begin(), places.end(), [&](const Place& p) {
      return p.asleep == kNoThread && !p.lost && !sleeps(p.thread);
    });
  }

  /// Called in a child that was forked while guests had sequences: only this thread of theirs
  /// exists here.
  void begin_in_child() {
    if (forks == fork_count()) return;
    forks = fork_count();
    for (Place& p : places) p.lost = p.thread != this_thread_number();
  }

  /// Adds a place at the end of the queue, which lasts until the last copy of the lease is
  /// destroyed.
  static Sequence::Lease queue(const std::shared_ptr<State>& state, const Guest& guest,
                               std::list<Place>::iterator* at) {
    {
      const std::lock_guard<std::mutex> lock(state->mutex);
      state->begin_in_child();
      state->places.push_back(
          {&guest, guest.thread_, this_thread_number(), state->someone_is_denied()});
      *at = std::prev(state->places.end());
      state->change();  // the first guest may have relied on this thread
    }
    // Without the lock: where there is no memory for the lease, it is given back at once.
    return Sequence::Lease(state.get(), [state, place = *at](void*) {
      const std::lock_guard<std::mutex> leaving(state->mutex);
      state->places.erase(place);
      state->change();
    });
  }
};

SequencePool::SequencePool(OpenedModel& model, int64_t budget)
    : model_(model),
      each_(cache_bytes(model).total()),
      budget_(budget_or_default(budget, model)),
      state_(std::make_shared<State>()) {
  if (budget_ < each_)
    throw Error(ErrorKind::kArgument,
                format("kv_budget is %lld bytes, but the K/V cache of one sequence of %lld tokens "
                       "takes %lld; give it more, or open the model with a smaller context",
                       static_cast<long long>(budget_), static_cast<long long>(model.context()),
                       static_cast<long long>(each_)));
}

// Idle sequences keep the state that they lie in, so it does not drop them by itself.
SequencePool::~SequencePool() { drop_idle(); }

int64_t SequencePool::used() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->used;
}

void SequencePool::throw_no_room() const {
  throw Error(
      ErrorKind::kMemory,
      format("the K/V caches of the sequences in use fill the budget of %s, %s each; close one, or "
             "open the model with a smaller context or a larger kv_budget",
             megabytes(budget_).c_str(), megabytes(each_).c_str()));
}

// Returns what try_it() returns; throws if that is null or if guests wait, whom it must not
// overtake.
template <class Try>
std::unique_ptr<Sequence> SequencePool::without_waiting(const Try& try_it) {
  const ForkWatch::Use use(model_.watch());
  if (!use) throw_lost_by_fork();
  if (std::unique_ptr<Sequence> sequence = guests_wait() ? nullptr : try_it()) return sequence;
  throw_no_room();
}

bool SequencePool::guests_wait() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->someone_is_denied();
}

std::unique_ptr<Sequence> SequencePool::take(const std::vector<int32_t>& prompt) {
  return without_waiting([&] { return try_take(prompt); });
}

std::unique_ptr<Sequence> SequencePool::make() {
  return without_waiting([this] { return try_make(/*patient=*/true); });
}

SequencePool::Guest::Guest(SequencePool& pool) : pool_(pool), thread_(this_thread_number()) {}

std::unique_ptr<Sequence> SequencePool::Guest::take(const std::vector<int32_t>& prompt,
                                                    const std::function<void()>& poll) {
  const ForkWatch::Use use(pool_.model_.watch());
  if (!use) throw_lost_by_fork();
  State& state = *pool_.state_;
  std::list<State::Place>::iterator place;
  Sequence::Lease lease = State::queue(pool_.state_, *this, &place);
  std::unique_lock<std::mutex> lock(state.mutex);
  const auto without_lock = [&lock](const auto& act) {
    lock.unlock();
    act();
    lock.lock();
  };
  for (;;) {
    if (cancelled_) throw Error(ErrorKind::kCancelled, "the generation was cancelled");
    const uint64_t seen = state.changes;
    if (state.is_first(*this)) {
      std::unique_ptr<Sequence> sequence;
      without_lock([&] { sequence = pool_.try_take(prompt); });
      if (sequence) {
        place->asleep = kNoThread;
        state.change();
        sequence->guest = std::move(lease);
        return sequence;
      }
      for (State::Place& p : state.places) p.denied = true;
      if (state.changes == seen && !state.someone_is_at_work()) pool_.throw_no_room();
    }
    const auto changed = [&] { return state.changes != seen; };
    if (!poll)
      state.changed.wait(lock, changed);
    else if (!state.changed.wait_for(lock, kPollInterval, changed))
      without_lock(poll);
  }
}

void SequencePool::Guest::cancel() {
  const ForkWatch::Use use(pool_.model_.watch());
  if (!use) return;
  const std::lock_guard<std::mutex> lock(pool_.state_->mutex);
  cancelled_ = true;
  pool_.state_->change();
}

std::unique_ptr<Sequence> SequencePool::try_take(const std::vector<int32_t>& prompt) {
  std::unique_ptr<Sequence> source;
  int64_t reuse = 0;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    auto& idle = state_->idle;
    auto best = idle.end();
    for (auto it = idle.begin(); it != idle.end(); ++it)
      if (const int64_t n = (*it)->reusable(prompt); n > reuse) {
        best = it;
        reuse = n;
      }
    if (best != idle.end()) {
      source = std::move(*best);
      idle.erase(best);
      ++state_->lent;
    }
  }
  if (!source) return try_make(/*patient=*/true);
  const auto returned = [state = state_.get()](void*) {
    const std::lock_guard<std::mutex> lock(state->mutex);
    --state->lent;
    state->change();
  };
  const std::unique_ptr<State, decltype(returned)> loan(state_.get(), returned);
  // A conversation usually continues where it ended, except for a few tokens. Otherwise the earlier
  // sequence is copied and kept, because another prompt may continue it too.
  if (source->length() - reuse > kReprocessedTokens) {
    if (std::unique_ptr<Sequence> copy = try_make(/*patient=*/false)) {
      copy->copy(*source, reuse);
      give_back(std::move(source));
      return copy;
    }
  }
  source->truncate(reuse);
  return source;
}

std::unique_ptr<Sequence> SequencePool::try_make(bool patient) {
  Sequence::Lease room = reserve(patient);
  if (!room) return nullptr;
  return std::make_unique<Sequence>(model_.new_kv(model_.context()), model_.context(),
                                    std::move(room));
}

// Forgets idle sequences, the longest unused first, until the budget suffices. A patient call waits
// for those that are lent; who has such a one must not, because another may wait for it.
Sequence::Lease SequencePool::reserve(bool patient) {
  for (;;) {
    std::unique_ptr<Sequence> oldest;  // destroyed outside the lock, which its lease takes
    std::unique_lock<std::mutex> lock(state_->mutex);
    if (state_->used + each_ <= budget_) {
      state_->used += each_;
      break;
    }
    if (state_->idle.empty()) {
      if (!patient || state_->lent == 0) return nullptr;
      state_->changed.wait(lock);
      continue;
    }
    oldest = std::move(state_->idle.front());
    state_->idle.erase(state_->idle.begin());
  }
  return Sequence::Lease(state_.get(), [state = state_, bytes = each_](void*) {
    const std::lock_guard<std::mutex> lock(state->mutex);
    state->used -= bytes;
    state->change();
  });
}

void SequencePool::give_back(std::unique_ptr<Sequence> sequence) noexcept {
  const ForkWatch::Use use(model_.watch());
  if (!use) static_cast<void>(sequence.release());  // its leases would lock a lost mutex
  if (!use || sequence->length() == 0) return;
  Sequence::Lease guest = std::move(sequence->guest);  // released last, when the sequence is back
  const std::lock_guard<std::mutex> lock(state_->mutex);
  try {
    state_->idle.push_back(std::move(sequence));
    state_->change();
  } catch (const std::bad_alloc&) {
  }
}

void SequencePool::clear() {
  const ForkWatch::Use use(model_.watch());
  if (!use) throw_lost_by_fork();
  drop_idle();
}

void SequencePool::drop_idle() {
  std::vector<std::unique_ptr<Sequence>> idle;  // destroyed outside the lock
  const std::lock_guard<std::mutex> lock(state_->mutex);
  idle.swap(state_->idle);
}

}  // namespace gemtp
