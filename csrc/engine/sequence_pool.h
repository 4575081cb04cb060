// The sequences of a model: how much memory their K/V may take together, those that are not in use
// and wait for a prompt that begins alike, and who waits for room.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "engine/opened_model.h"
#include "engine/sequence.h"

namespace gemtp {

class SequencePool {
  struct State;

 public:
  /// budget: bytes that the K/V of all sequences may take; 0: half of the memory that is free, and
  /// no more than 16 full caches. Error{kArgument} where not even one fits.
  SequencePool(OpenedModel& model, int64_t budget);

  int64_t budget() const { return budget_; }
  /// Bytes of it that are taken, by sequences in use and by those that were given back.
  int64_t used() const;

  /// A sequence that holds as much of the beginning of `prompt` as an earlier one has: that one
  /// itself if it goes on, a copy of it otherwise. Error{kMemory} when sequences in use leave no
  /// room, or others wait for it.
  std::unique_ptr<Sequence> take(const std::vector<int32_t>& prompt);
  /// An empty one. Error{kMemory} likewise.
  std::unique_ptr<Sequence> make();

  /// One who waits where there is no room, in the order in which guests come. It waits for other
  /// guests to be done with their sequences, and only for them: whoever becomes a guest says that
  /// it will be done, by itself, as a generation is that runs to its end.
  class Guest {
   public:
    /// On the thread without which its work does not go on: no other guest that this thread waits
    /// as will wait for it.
    explicit Guest(SequencePool& pool) : pool_(pool), thread_(std::this_thread::get_id()) {}
    Guest(const Guest&) = delete;

    /// As SequencePool::take(). `poll`, if there is one, is called now and then while it waits;
    /// what it throws ends that. Error{kMemory} when there is no room and no guest left who could
    /// make some, Error{kCancelled} after cancel().
    std::unique_ptr<Sequence> take(const std::vector<int32_t>& prompt,
                                   const std::function<void()>& poll);
    /// From any thread.
    void cancel();

   private:
    friend struct State;
    SequencePool& pool_;
    const std::thread::id thread_;
    bool cancelled_ = false;  // under the pool's mutex
  };

  /// Keeps a sequence for later prompts, as long as the budget has room for it; forgets it where
  /// memory is short.
  void give_back(std::unique_ptr<Sequence> sequence) noexcept;
  /// Forgets all that were given back.
  void clear();

 private:
  std::unique_ptr<Sequence> try_take(const std::vector<int32_t>& prompt);
  std::unique_ptr<Sequence> try_make();  // null where the budget has no room
  Sequence::Lease reserve();             // null likewise
  void refuse_to_overtake() const;
  [[noreturn]] void throw_no_room() const;

  OpenedModel& model_;
  const int64_t each_, budget_;         // bytes: of a sequence, of all
  const std::shared_ptr<State> state_;  // which sequences keep, too
};

}  // namespace gemtp
