#include "worker.h"

#include <utility>

struct Worker::Error {
  gemtp_status status;
  std::string sentence;
};

void Worker::check(gemtp_status status) {
  if (status != GEMTP_OK) throw Error{status, error_};
}

// Takes thoughts and answer of a chat apart, token by token.
class Worker::ReplyText {
 public:
  ReplyText(gemtp_model* model, const std::vector<int32_t>& prompt, Worker& worker)
      : worker_(worker) {
    worker_.check(gemtp_reply_open(model, prompt.data(), prompt.size(), nullptr, 0, &reply_,
                                   worker_.error_, sizeof worker_.error_));
  }
  ~ReplyText() { gemtp_reply_close(reply_); }
  ReplyText(const ReplyText&) = delete;
  ReplyText& operator=(const ReplyText&) = delete;

  void push(const gemtp_token& token, std::vector<Piece>* pieces) {
    pieces_ = pieces;
    origin_ = static_cast<Origin>(token.source);
    worker_.check(gemtp_reply_push(reply_, token.id, on_event, this, nullptr, worker_.error_,
                                   sizeof worker_.error_));
  }
  void finish(std::vector<Piece>* pieces) {
    pieces_ = pieces;
    origin_ = Origin::kTarget;
    worker_.check(
        gemtp_reply_finish(reply_, on_event, this, worker_.error_, sizeof worker_.error_));
  }
  const std::string& answer() const { return answer_; }

 private:
  static int on_event(const gemtp_reply_event* event, void* user) {
    auto* self = static_cast<ReplyText*>(user);
    std::string text(event->text, event->length);
    const bool thought = event->part == GEMTP_PART_THINKING;
    if (self->thinking_ && !thought) text = "\n\n" + text;
    self->thinking_ = thought;
    if (!thought) self->answer_.append(event->text, event->length);
    self->pieces_->push_back({std::move(text), thought ? Origin::kThought : self->origin_});
    return 0;
  }

  Worker& worker_;
  gemtp_reply* reply_ = nullptr;
  std::vector<Piece>* pieces_ = nullptr;
  Origin origin_ = Origin::kTarget;
  bool thinking_ = false;
  std::string answer_;
};

static_assert(static_cast<int>(Origin::kTarget) == GEMTP_SOURCE_TARGET);
static_assert(static_cast<int>(Origin::kDrafter) == GEMTP_SOURCE_DRAFTER);
static_assert(static_cast<int>(Origin::kLookup) == GEMTP_SOURCE_LOOKUP);
static_assert(static_cast<int>(Origin::kGrammar) == GEMTP_SOURCE_GRAMMAR);

Worker::Worker(std::function<void(Event)> tell)
    : tell_(std::move(tell)), thread_([this] { run(); }) {}

Worker::~Worker() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  stop();
  asked_.notify_one();
  thread_.join();
  close();
}

void Worker::close() {
  gemtp_session_close(session_.exchange(nullptr));
  gemtp_model_close(std::exchange(model_, nullptr));
}

uint64_t Worker::ask(std::function<void()> job) {
  uint64_t number;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    number = ++asked_for_;
    jobs_.push_back({std::move(job), stops_, number});
  }
  asked_.notify_one();
  return number;
}

void Worker::tell(Event event) {
  event.job = number_;
  tell_(std::move(event));
}

void Worker::stop() {
  ++stops_;
  gemtp_session_cancel(session_, nullptr, 0);
}

void Worker::run() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      asked_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
      if (ending_) return;
      job = std::move(jobs_.front().run);
      stops_when_asked_ = jobs_.front().stops;
      number_ = jobs_.front().number;
      jobs_.pop_front();
    }
    job();
  }
}

uint64_t Worker::load(const Settings& settings) {
  return ask([this, settings] { open(settings); });
}

uint64_t Worker::send(const std::string& text, bool chat) {
  return ask([this, text, chat] { answer(text, chat); });
}

void Worker::start_anew() {
  ask([this] {
    messages_.clear();
    empty_ = true;
    gemtp_session_assign(session_, nullptr, 0, nullptr, 0);
  });
}

void Worker::open(const Settings& settings) {
  close();
  messages_.clear();
  empty_ = true;
  settings_ = settings;
  try {
    gemtp_model_options options;
    gemtp_model_options_init(&options, sizeof options);
    if (!settings.drafter.empty()) options.drafter_path = settings_.drafter.c_str();
    options.context = settings.context;
    options.threads = settings.threads;
    options.user = this;
    options.progress = [](double fraction, void* user) -> int {
      auto* self = static_cast<Worker*>(user);
      Event e{Event::kLoading};
      e.fraction = fraction;
      self->tell(std::move(e));
      return self->stopped();
    };
    check(gemtp_model_open(settings_.target.c_str(), &options, &model_, error_, sizeof error_));
    gemtp_session* session = nullptr;
    check(gemtp_session_open(model_, &session, error_, sizeof error_));
    session_ = session;
    Event e{Event::kLoaded};
    e.info.size = sizeof e.info;
    check(gemtp_model_describe(model_, &e.info, error_, sizeof error_));
    tell(std::move(e));
  } catch (const Error& error) {
    close();
    Event e{Event::kNotLoaded};
    if (error.status != GEMTP_ERROR_CANCELLED) e.text = error.sentence;
    tell(std::move(e));
  }
}

std::vector<int32_t> Worker::chat_tokens() {
  std::vector<gemtp_message> messages;
  if (!settings_.system.empty())
    messages.push_back(
        {sizeof(gemtp_message), "system", settings_.system.data(), settings_.system.size()});
  for (const auto& [role, text] : messages_)
    messages.push_back({sizeof(gemtp_message), role.c_str(), text.data(), text.size()});
  size_t count = 0;
  check(gemtp_chat_tokens(model_, messages.data(), messages.size(), nullptr, nullptr, 0, &count,
                          error_, sizeof error_));
  std::vector<int32_t> ids(count);
  check(gemtp_chat_tokens(model_, messages.data(), messages.size(), nullptr, ids.data(), count,
                          &count, error_, sizeof error_));
  return ids;
}

void Worker::answer(const std::string& text, bool chat) {
  bool kept = false;
  try {
    if (!model_) throw Error{GEMTP_ERROR_ARGUMENT, "no model is open; open one first"};
    if (!chat) {
      check(gemtp_session_append_text(session_, text.data(), text.size(),
                                      empty_ ? GEMTP_ADD_BOS : 0, error_, sizeof error_));
      empty_ = false;
      generate(nullptr);
      return;
    }
    messages_.emplace_back("user", text);
    const std::vector<int32_t> ids = chat_tokens();
    check(gemtp_session_assign(session_, ids.data(), ids.size(), error_, sizeof error_));
    empty_ = false;
    ReplyText reply(model_, ids, *this);
    generate(&reply);
    messages_.emplace_back("assistant", reply.answer());
    kept = true;
  } catch (const Error& error) {
    if (chat && !kept && !messages_.empty()) messages_.pop_back();
    Event e{Event::kFailed};
    e.text = error.sentence;
    tell(std::move(e));
  }
}

// Steps until the end, also the one that stop() brings, and tells what comes.
void Worker::generate(ReplyText* reply) {
  gemtp_generate_options options;
  gemtp_generate_options_init(&options, sizeof options);
  options.max_tokens = settings_.max_tokens ? settings_.max_tokens : settings_.context;
  options.temperature = settings_.temperature;
  options.top_k = settings_.top_k;
  options.top_p = settings_.top_p;
  options.seed = settings_.seed;
  check(gemtp_session_begin(session_, &options, error_, sizeof error_));

  Event e{Event::kPieces};
  e.stats.size = sizeof e.stats;
  gemtp_finish finish = GEMTP_UNFINISHED;
  while (finish == GEMTP_UNFINISHED && !stopped()) {
    size_t count = 0;
    const gemtp_status status =
        gemtp_session_step(session_, &count, &finish, error_, sizeof error_);
    if (status == GEMTP_ERROR_CANCELLED) break;
    check(status);
    e.pieces.clear();
    for (size_t i = 0; i < count; ++i) {
      gemtp_token token;
      token.size = sizeof token;
      check(gemtp_session_emitted(session_, i, &token, error_, sizeof error_));
      if (reply)
        reply->push(token, &e.pieces);
      else
        e.pieces.push_back(
            {std::string(token.text, token.length), static_cast<Origin>(token.source)});
    }
    check(gemtp_session_stats(session_, &e.stats, error_, sizeof error_));
    e.kind = Event::kPieces;
    if (e.stats.tokens == 0 && e.stats.prompt_tokens > 0) {
      e.kind = Event::kPrompt;
      e.fraction =
          static_cast<double>(e.stats.prompt_done) / static_cast<double>(e.stats.prompt_tokens);
    }
    tell(e);
  }
  e.pieces.clear();
  if (reply) reply->finish(&e.pieces);
  e.kind = Event::kPieces;
  if (!e.pieces.empty()) tell(e);
  check(gemtp_session_stats(session_, &e.stats, error_, sizeof error_));
  if (stopped()) e.stats.finish = GEMTP_FINISH_CANCELLED;
  e.kind = Event::kDone;
  tell(e);
}
