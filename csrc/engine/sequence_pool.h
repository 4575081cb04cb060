// The sequences of a model: the memory budget of their K/V, the idle sequences kept for prompts
// that begin alike, and the guests that wait for memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/opened_model.h"
#include "engine/sequence.h"

namespace gemtp {

class SequencePool {
  struct State;

 public:
  /// budget: bytes that the K/V of all sequences may take; 0: half of the free memory, but at most
  /// 16 full caches. Throws Error{kArgument} if not even one sequence fits.
  SequencePool(OpenedModel& model, int64_t budget);
  ~SequencePool();  // drops all idle sequences

  int64_t budget() const { return budget_; }
  /// Bytes of the budget that are taken, both by sequences in use and by idle ones.
  int64_t used() const;

  /// Returns a sequence with the longest beginning of `prompt` that an idle sequence has: that
  /// sequence itself if the prompt continues it, otherwise a copy. Throws Error{kMemory} if the
  /// sequences in use leave no memory, or guests wait for it.
  std::unique_ptr<Sequence> take(const std::vector<int32_t>& prompt);
  /// Returns an empty sequence. Throws Error{kMemory} under the same conditions.
  std::unique_ptr<Sequence> make();

  /// A caller that waits if there is no memory, in order of arrival. It waits only for other guests
  /// to give back their sequences. Becoming a guest is therefore a promise to finish without
  /// outside help, like a generation that runs to its end. Pools do not know of each other: two
  /// threads that each have a sequence of one pool and wait in the other's wait for ever, as with
  /// two locks that are taken in different orders.
  class Guest {
   public:
    /// Must be constructed on the thread that does the guest's work: other guests that wait on this
    /// thread do not wait for this one.
    explicit Guest(SequencePool& pool);
    Guest(const Guest&) = delete;

    /// Works like SequencePool::take(), but waits. `poll` (optional) is called now and then while
    /// waiting; an exception from it ends the wait. Throws Error{kMemory} if there is no memory and
    /// no guest left that could free some, and Error{kCancelled} after cancel().
    std::unique_ptr<Sequence> take(const std::vector<int32_t>& prompt,
                                   const std::function<void()>& poll);
    /// Ends take() with Error{kCancelled}. May be called from any thread.
    void cancel();

   private:
    friend struct State;
    SequencePool& pool_;
    const uint64_t thread_;
    bool cancelled_ = false;  // guarded by the pool's mutex
  };

  /// Keeps a sequence for later prompts as long as the budget allows; drops it if memory is short.
  void give_back(std::unique_ptr<Sequence> sequence) noexcept;
  /// Drops all idle sequences.
  void clear();

 private:
  std::unique_ptr<Sequence> try_take(const std::vector<int32_t>& prompt);
  // Null if the budget does not suffice. patient: see reserve().
  std::unique_ptr<Sequence> try_make(bool patient);
  void drop_idle();
  Sequence::Lease reserve(bool patient);  // null if the budget does not suffice
  template <class Try>
  std::unique_ptr<Sequence> without_waiting(const Try& try_it);
  bool guests_wait() const;
  [[noreturn]] void throw_no_room() const;

  OpenedModel& model_;
  const int64_t each_, budget_;         // bytes of one sequence, and of all
  const std::shared_ptr<State> state_;  // shared with the sequences
};

}  // namespace gemtp
