#include "engine/scheduler.h"

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/error.h"
#include "engine/opened_model.h"

namespace gemtp {
namespace {

// kPromptRowsBeside: rows of prompts in a pass with decoding sequences. kFewestPromptRows: the
// fewest rows of one prompt, which the kernels process together.
constexpr int64_t kPromptRowsBeside = 64, kFewestPromptRows = 16;
constexpr int64_t kVerifyRows = CostModel::kMaxRows;  // most rows of a decoding sequence

// A shared pass is used to learn the cost of rows if its K/V is at most this share of the weights.
constexpr double kNegligibleContext = 0.1;

// How long a pass waits for participants of the previous pass: a share of that pass's duration, and
// bounds in seconds.
constexpr double kPatience = 0.05, kShortestWait = 3e-4, kLongestWait = 5e-3;

double patience(double pass_seconds) {
  return std::clamp(kPatience * pass_seconds, kShortestWait, kLongestWait);
}

[[noreturn]] void throw_cancelled() {
  throw Error(ErrorKind::kCancelled, "the generation was cancelled");
}

}  // namespace

Scheduler::Scheduler(OpenedModel& model, Outputs& outputs)
    : model_(model), outputs_(outputs), max_rows_(model.options().max_rows()) {
  running_.reserve(static_cast<size_t>(kOutputRows));
  expected_.reserve(static_cast<size_t>(kOutputRows));
}

void Scheduler::run(Participant& p) {
  const ForkWatch::Use use(model_.watch());
  if (!use) throw_lost_by_fork();
  model_.refuse_nested();
  std::unique_lock<std::mutex> lock(mutex_);
  std::erase(expected_, &p);
  if (p.cancelled()) throw_cancelled();
  if (p.left_ >= 0) p.slow_ = monotonic_seconds() - p.left_ > patience(pass_seconds_);
  Request request{&p, false, false, nullptr};
  queue_.reserve(queue_.size() + running_.size() + 1);  // running requests may return to the queue
  queue_.push_back(&request);
  changed_.notify_all();  // wakes a thread in await_others()
  while (!request.done) {
    const auto waiting = std::find(queue_.begin(), queue_.end(), &request);
    if (p.cancelled() && waiting != queue_.end()) {
      queue_.erase(waiting);
      throw_cancelled();
    }
    if (leading_)
      changed_.wait(lock);
    else
      lead(lock);
  }
  p.left_ = ended_;
  if (request.error) std::rethrow_exception(request.error);
}

void Scheduler::cancel(Participant& p) {
  const ForkWatch::Use use(model_.watch());
  if (!use) {
    p.cancelled_ = true;  // no pass will run it
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  p.cancelled_ = true;
  for (const Request* r : running_)
    if (r->participant == &p) stop_ = true;
  changed_.notify_all();
}

void Scheduler::leave(Participant& p) {
  const ForkWatch::Use use(model_.watch());
  if (!use) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase(expected_, &p);
  changed_.notify_all();
}

void Scheduler::await_others(std::unique_lock<std::mutex>& lock) {
  const auto all_here = [this] {
    return std::all_of(expected_.begin(), expected_.end(),
                       [](const Participant* p) { return p->slow_; });
  };
  const double left = ended_ + patience(pass_seconds_) - monotonic_seconds();
  if (left > 0) changed_.wait_for(lock, std::chrono::duration<double>(left), all_here);
  expected_.clear();
}

// Moves the requests to run now to running_: at most one for each row that can have outputs.
void Scheduler::take() {
  const auto limit = static_cast<size_t>(std::min(kOutputRows, max_rows_));
  for (auto it = queue_.begin(); it != queue_.end() && running_.size() < limit;) {
    if ((*it)->participant->cancelled()) {
      ++it;  // its own thread removes it
      continue;
    }
    running_.push_back(*it);
    it = queue_.erase(it);
  }
}

void Scheduler::lead(std::unique_lock<std::mutex>& lock) noexcept {
  leading_ = true;
  await_others(lock);
  take();
  stop_ = false;
  lock.unlock();
  const double start = monotonic_seconds();
  run_batch();
  lock.lock();
  ended_ = monotonic_seconds();
  pass_seconds_ = ended_ - start;
  // Requests that have not run go first next time.
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    (*it)->done = (*it)->ran;
    if (!(*it)->ran) queue_.insert(queue_.begin(), *it);
  }
  for (const Request* r : running_)
    if (r->done) expected_.push_back(r->participant);
  running_.clear();
  leading_ = false;
  changed_.notify_all();
}

// Runs a pass for the requests in running_, which does not change meanwhile. An error is set in all
// requests that have not run.
void Scheduler::run_batch() noexcept {
  if (running_.empty()) return;
  try {
    const OpenedModel::Exclusive exclusive(model_, &stop_);
    run_pass(running_);
  } catch (...) {
    for (Request* r : running_) {
      if (r->ran) continue;
      r->error = std::current_exception();
      r->ran = true;
    }
  }
}

// Rows of the next prompt out of `budget` rows for `prompts` prompts: an even share, in multiples
// of kFewestPromptRows.
int64_t Scheduler::prompt_rows(int64_t budget, int64_t prompts) {
  const int64_t even = budget / prompts / kFewestPromptRows * kFewestPromptRows;
  return std::min(budget, std::max(even, kFewestPromptRows));
}

// Runs the requests that fit; sets `ran` in those that have had their turn.
void Scheduler::run_pass(std::span<Request* const> batch) {
  struct Part {
    Request* request;
    int64_t output;  // its first row in the outputs
  };
  std::vector<Part> parts;
  std::vector<SequenceRows> sequences;
  parts.reserve(batch.size());  // reserved first, so that both always have the same size
  sequences.reserve(batch.size());
  int64_t rows = 0, wanted = 0;
  HeadOutput head = HeadOutput::kNone;  // the largest output that any of them needs
  const auto prepare = [&](Request* r, const Participant::Allotment& allotment) {
    try {
      const SequenceRows s = r->participant->prepare(allotment);
      parts.push_back({r, wanted});
      sequences.push_back(s);
      rows += s.m;
      wanted += s.want;
      head = std::max(head, s.head);
    } catch (...) {
      r->error = std::current_exception();
      r->ran = true;
    }
  };

  auto prompts = std::count_if(batch.begin(), batch.end(),
                               [](Request* r) { return r->participant->prefilling(); });
  const auto decoding = static_cast<int64_t>(batch.size()) - prompts;
  // Participants that are not prepared yet count as one row and one token each.
  Others all;
  for (const Request* r : batch) {
    if (r->participant->prefilling()) continue;
    ++all.rows;
    ++all.tokens;
    all.context += r->participant->context();
  }
  int64_t others = decoding;
  for (Request* r : batch) {
    if (r->participant->prefilling() || stop_) continue;
    --others;
    --all.rows;
    --all.tokens;
    const double context = r->participant->context();
    const int64_t room = std::min(outputs_.rows() - wanted, max_rows_ - rows);
    const int64_t before = rows;
    prepare(r, {std::min(kVerifyRows, room - others - prompts),
                {all.rows, all.tokens, all.context - context}});
    all.rows += static_cast<int>(rows - before);
    if (!r->ran) all.tokens += r->participant->expected_tokens();
  }
  int64_t budget =
      std::min(max_rows_ - rows, decoding ? kPromptRowsBeside : model_.options().prefill_chunk);
  for (Request* r : batch) {
    if (!r->participant->prefilling() || budget <= 0 || stop_) continue;
    const int64_t before = rows;
    prepare(r, {prompt_rows(budget, prompts--), {}});
    budget -= rows - before;
  }
  if (sequences.empty() || stop_) return;

  const double start = monotonic_seconds();
  try {
    model_.target().forward(sequences, outputs_.of(head));
  } catch (...) {
    if (stop_) return;
    if (parts.size() > 1) {  // find the sequence that fails by running each alone
      for (const Part& part : parts) run_pass({&part.request, 1});
      return;
    }
    parts[0].request->error = std::current_exception();
    parts[0].request->ran = true;
    return;
  }
  double seconds = monotonic_seconds() - start;
  if (rows != wanted || (parts.size() > 1 && all.context > kNegligibleContext)) seconds = 0;
  for (const Part& part : parts) {
    try {
      part.request->participant->complete(outputs_, part.output, rows, seconds);
      seconds = 0;  // only one of them learns from the time
    } catch (...) {
      part.request->error = std::current_exception();
    }
    part.request->ran = true;
  }
}

}  // namespace gemtp
