// What the window does not wait for: the model is loaded, and answers are generated, on a thread of
// their own. Everything here is the C ABI of gemtp.h and the standard library.
#pragma once

#include <gemtp.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

enum class Origin { kTarget, kDrafter, kLookup, kGrammar, kThought };

struct Piece {
  std::string text;
  Origin origin;
};

/// What the worker tells, on its own thread.
struct Event {
  enum Kind {
    kLoading,    // fraction
    kLoaded,     // info
    kNotLoaded,  // text: why; empty if stopped
    kPrompt,     // fraction
    kPieces,     // pieces, stats
    kDone,       // stats
    kFailed      // text: why no answer came, or no more of it
  };
  Kind kind;
  uint64_t job = 0;  // as the functions below number what is asked for
  double fraction = 0;
  std::string text = {};
  std::vector<Piece> pieces = {};
  gemtp_stats stats{};
  gemtp_model_info info{};
};

struct Settings {
  std::string target, drafter;  // drafter may be empty
  int64_t context = 4096;
  int32_t threads = 0;
  int64_t max_tokens = 0;  // 0: as many as the context holds
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  uint64_t seed = 0;
  std::string system;  // the first message of a chat
};

class Worker {
 public:
  explicit Worker(std::function<void(Event)> tell);
  ~Worker();

  // From the window's thread. What is asked for is done one after the other, and numbered.
  uint64_t load(const Settings& settings);
  /// chat: as a message, else as text to go on with.
  uint64_t send(const std::string& text, bool chat);
  void start_anew();
  /// Ends what has been asked for so far. It is told of all the same.
  void stop();

 private:
  struct Error;
  class ReplyText;

  uint64_t ask(std::function<void()> job);
  void tell(Event event);
  bool stopped() const { return stops_ != stops_when_asked_; }
  void run();
  void open(const Settings& settings);
  void answer(const std::string& text, bool chat);
  void generate(ReplyText* reply);
  std::vector<int32_t> chat_tokens();
  void check(gemtp_status status);
  void close();

  const std::function<void(Event)> tell_;
  std::mutex mutex_;
  std::condition_variable asked_;
  struct Job {
    std::function<void()> run;
    uint64_t stops;  // before it was asked for
    uint64_t number;
  };
  std::deque<Job> jobs_;
  bool ending_ = false;
  uint64_t asked_for_ = 0;
  std::atomic<uint64_t> stops_{0};
  std::atomic<gemtp_session*> session_{nullptr};

  // The worker's own.
  uint64_t stops_when_asked_ = 0, number_ = 0;
  gemtp_model* model_ = nullptr;
  Settings settings_;
  std::vector<std::pair<std::string, std::string>> messages_;  // role, text
  bool empty_ = true;                                          // nothing was sent yet
  char error_[512] = "";
  std::thread thread_;  // last: uses all of the above
};
