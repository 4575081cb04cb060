// Shared passes: the rows of all sequences that wait for the target run through it together.
//
// A thread that has rows to run joins a queue. A thread that finds no pass running runs the next
// one for all that wait; the others sleep until their rows are done. Callers that step their own
// sequences, each on its own thread, thus share passes without knowing of each other, and a single
// caller never waits. Weights are read once for all rows. Since every row has the bits it would
// have alone, only the time differs.
//
// Sequences are served in the order of arrival. Decoding sequences go first, each with a row and
// its drafts. Prompts get the remaining rows; next to decoding sequences only so few that these are
// not delayed long. A pass waits a moment for sequences of the previous pass to return with their
// next rows, except for those known to be slow.
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

  /// Whether its next rows belong to a prompt.
  virtual bool prefilling() const = 0;

  struct Allotment {
    int64_t rows;   // most rows it may return
    Others others;  // the other sequences of the pass, as far as known
  };
  /// Returns its rows. After a pass that was stopped it is called again without complete().
  virtual SequenceRows prepare(const Allotment& allotment) = 0;
  /// Expected tokens of the rows that prepare() returned.
  virtual double expected_tokens() const = 0;
  /// K/V that a row reads, in the unit of CostModel.
  virtual double context() const = 0;
  /// Called after the rows have run. Their outputs begin at `row`; the pass had `rows` rows in
  /// total and took `seconds` (0 if nothing should be learned from the time).
  virtual void complete(const Outputs& outputs, int64_t row, int64_t rows, double seconds) = 0;

  /// Whether it has been cancelled.
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  friend class Scheduler;
  std::atomic<bool> cancelled_{false};
  double left_ = -1;   // time when its latest pass ended
  bool slow_ = false;  // did not return soon after its latest pass
};

class Scheduler {
 public:
  /// Maximum number of rows with outputs in a pass.
  static constexpr int64_t kOutputRows = 128;

  Scheduler(OpenedModel& model, Outputs& outputs);

  /// Lets the participant take part in one pass. Rethrows exceptions of its prepare() or complete()
  /// and of the pass. Throws Error{kCancelled} after cancel(); then it has not taken part.
  void run(Participant& participant);
  /// Makes the current and every later run() of the participant return within milliseconds. May be
  /// called from any thread, at any time.
  void cancel(Participant& participant);
  /// Says that the participant has no more rows, so that passes do not wait for it.
  void leave(Participant& participant);

 private:
  struct Request {
    Participant* participant;
    bool ran = false;   // set by the thread that runs the pass
    bool done = false;  // after this the request may be destroyed
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
  const int64_t max_rows_;  // rows of a pass
  std::mutex mutex_;
  std::condition_variable changed_;
  bool leading_ = false;
  // The leading thread must not fail, because other threads wait for it. Therefore these vectors
  // have enough capacity reserved for everything that a pass adds.
  std::vector<Request*> queue_;          // waiting, in order of arrival
  std::vector<Request*> running_;        // in the current pass
  std::vector<Participant*> expected_;   // were in the latest pass and have not returned yet
  double pass_seconds_ = 0, ended_ = 0;  // duration and end of the latest pass
  std::atomic<bool> stop_{false};        // stops the running pass
};

}  // namespace gemtp
