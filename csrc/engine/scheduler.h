// Shared passes: the rows of all sequences that wait for the target go through it together.
//
// A thread that has rows to run joins a queue. Whoever finds no pass running runs the next one, for
// all that wait; the others sleep until theirs is done. So callers that step sequences of their
// own, each on its own thread, share passes without knowing of each other, and a single caller
// waits for nobody. Weights are read once for all, and as every row has the bits it would have
// alone, nothing but the clock can tell.
//
// Sequences are served in the order in which they came. Those that decode go first: each brings a
// row and its drafts. Prompts get what rows are left; beside others that decode, so few that these
// are not held up long. A sequence that took part in the latest pass is given a moment to come back
// with its next rows, unless it is known to be slow.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <vector>

#include "draft/depth.h"
#include "engine/outputs.h"
#include "model/target.h"

namespace gemtp {

class OpenedModel;

/// A sequence that has rows to run. Its functions are called by the thread that runs the pass,
/// while its own thread waits.
class Participant {
 public:
  virtual ~Participant() = default;

  /// Whether its next rows are a prompt's.
  virtual bool prefilling() const = 0;

  struct Allotment {
    int64_t rows;   // at most so many
    Others others;  // who else is there, as far as known
  };
  /// Its rows. May be called again without complete(): after a pass that was stopped.
  virtual SequenceRows prepare(const Allotment& allotment) = 0;
  /// Of what prepare() gave.
  virtual double expected_tokens() const = 0;
  /// K/V that a row reads, as in CostModel.
  virtual double context() const = 0;
  /// They have run: outputs from `row` on, in a pass of `rows` rows in all that took `seconds`, 0
  /// if that is not to be learned from.
  virtual void complete(const Outputs& outputs, int64_t row, int64_t rows, double seconds) = 0;

  /// Stops it, from any thread.
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  friend class Scheduler;
  std::atomic<bool> cancelled_{false};
  double left_ = -1;   // when its latest pass ended
  bool slow_ = false;  // did not come back soon after it
};

class Scheduler {
 public:
  /// Most rows of a pass whose outputs are wanted.
  static constexpr int64_t kOutputRows = 128;

  Scheduler(OpenedModel& model, Outputs& outputs);

  /// Takes part in one pass. Throws what its prepare() or complete() threw, or the pass;
  /// Error{kCancelled} after cancel(): then it has not taken part.
  void run(Participant& participant);
  /// From any thread, in any state: run() returns within milliseconds, now and for ever.
  void cancel(Participant& participant);
  /// It has no more rows: nobody waits for it.
  void leave(Participant& participant);

 private:
  struct Request {
    Participant* participant;
    bool ran = false;   // set by whoever runs the pass
    bool done = false;  // from here on its owner may be gone
    std::exception_ptr error;
  };

  void await_others(std::unique_lock<std::mutex>& lock);
  void take();
  void lead(std::unique_lock<std::mutex>& lock) noexcept;
  void run_batch() noexcept;
  void run_pass(std::span<Request* const> batch);
  static int64_t prompt_rows(int64_t budget, int64_t prompts);

  OpenedModel& model_;
  Outputs& outputs_;
  const int64_t max_rows_;  // of a pass
  std::mutex mutex_;
  std::condition_variable changed_;
  bool leading_ = false;
  // Whoever leads acts for others, who would wait for ever if it could fail: so these have room for
  // all that a pass puts there.
  std::vector<Request*> queue_;          // that wait, in the order they came
  std::vector<Request*> running_;        // in the pass
  std::vector<Participant*> expected_;   // of the latest pass, not back yet
  double pass_seconds_ = 0, ended_ = 0;  // of the latest pass
  std::atomic<bool> stop_{false};        // the pass that is running
};

}  // namespace gemtp
