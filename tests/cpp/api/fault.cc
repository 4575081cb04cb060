// Lets every allocation and every use of a file in every public call fail, one after the other: the
// call must then return an error or work all the same, nothing may crash, hang or leak, and the
// next call must return the usual bytes. GEMTP_FAULTS=all tries all of them, GEMTP_FAULTS=n only
// the n-th; the default is a sample.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "api/c/handles.h"
#include "engine/engine.h"
#include "gemtp.h"

namespace {

enum class Failing { kOne, kAllFromThere };
enum class Cause { kMemory, kFile };

std::atomic<bool> armed{false};
std::atomic<int64_t> left{0};  // until the one that fails
std::atomic<int64_t> live{0};  // allocations that have not been given back
Failing failing = Failing::kOne;
Cause cause = Cause::kMemory;

bool fails(Cause of = Cause::kMemory) {
  if (!armed.load(std::memory_order_relaxed) || of != cause) return false;
  const int64_t now = left.fetch_sub(1) - 1;
  return now == 0 || (now < 0 && failing == Failing::kAllFromThere);
}

void* allocate(size_t n, size_t alignment) {
  if (fails()) throw std::bad_alloc();
  n = (n + alignment - 1) / alignment * alignment;
  void* p = alignment <= alignof(std::max_align_t)
                ? std::malloc(n ? n : 1)
                : std::aligned_alloc(alignment, n ? n : alignment);
  if (!p) throw std::bad_alloc();
  ++live;
  return p;
}

void release(void* p) {
  if (p) --live;
  std::free(p);
}

}  // namespace

void* operator new(size_t n) { return allocate(n, 1); }
void* operator new[](size_t n) { return allocate(n, 1); }
void* operator new(size_t n, std::align_val_t a) { return allocate(n, static_cast<size_t>(a)); }
void* operator new[](size_t n, std::align_val_t a) { return allocate(n, static_cast<size_t>(a)); }
void* operator new(size_t n, const std::nothrow_t&) noexcept {
  try {
    return allocate(n, 1);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, size_t) noexcept { release(p); }
void operator delete[](void* p, size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { release(p); }

// The linker leads calls of these here: what is not from operator new.
extern "C" {
void* __real_calloc(size_t n, size_t size);
void* __wrap_calloc(size_t n, size_t size) { return fails() ? nullptr : __real_calloc(n, size); }
void* __real_mmap(void* at, size_t n, int protection, int flags, int fd, off_t offset);
void* __wrap_mmap(void* at, size_t n, int protection, int flags, int fd, off_t offset) {
  if (!fails()) return __real_mmap(at, n, protection, flags, fd, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

bool file_fails() {
  if (!fails(Cause::kFile)) return false;
  errno = EIO;
  return true;
}
int __real_open(const char* path, int flags, ...);
int __wrap_open(const char* path, int flags, mode_t mode) {
  return file_fails() ? -1 : __real_open(path, flags, mode);
}
int __real_fstat(int fd, struct stat* status);
int __wrap_fstat(int fd, struct stat* status) {
  return file_fails() ? -1 : __real_fstat(fd, status);
}
ssize_t __real_pread(int fd, void* to, size_t n, off_t offset);
ssize_t __wrap_pread(int fd, void* to, size_t n, off_t offset) {
  return file_fails() ? -1 : __real_pread(fd, to, n, offset);
}
ssize_t __real_write(int fd, const void* from, size_t n);
ssize_t __wrap_write(int fd, const void* from, size_t n) {
  return file_fails() ? -1 : __real_write(fd, from, n);
}
int __real_fsync(int fd);
int __wrap_fsync(int fd) { return file_fails() ? -1 : __real_fsync(fd); }
int __real_close(int fd);
int __wrap_close(int fd) {  // what fails to be closed is closed, as on Linux
  const int status = __real_close(fd);
  return file_fails() ? -1 : status;
}
}

#if !defined(GEMTP_SANITIZED)  // whose runtime has a function of its own
// An executable's symbols go before those of libraries: the C++ library's threads come here.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*run)(void*), void* argument) {
  using Create = int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static auto* const create = reinterpret_cast<Create*>(dlsym(RTLD_NEXT, "pthread_create"));
  return fails() ? EAGAIN : create(thread, attributes, run, argument);
}
#endif

namespace {

const std::string kData = GEMTP_SOURCE_DIR "/python/gemtp_native/data/";
const std::string kTarget = kData + "target.gguf", kDrafter = kData + "drafter.gguf";
constexpr const char* kPrompt = "def mean(values):\n    total = 0\n    for value in values:\n";

char error[512];

// Ends the process where a call does not come back.
class Watchdog {
 public:
  Watchdog() : thread_([this] { watch(); }) {}
  ~Watchdog() {
    done_ = true;
    thread_.join();
  }
  void at(const char* what, int64_t n) {
    what_ = what;
    n_ = n;
    ++beats_;
  }

 private:
  void watch() {
    int64_t seen = -1;
    for (int quiet = 0; !done_; ++quiet) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      if (beats_ != seen) quiet = 0;
      seen = beats_;
      if (quiet < 600) continue;
      std::fprintf(stderr, "%s hangs after allocation %lld\n", what_.load(),
                   static_cast<long long>(n_));
      std::abort();
    }
  }

  std::atomic<bool> done_{false};
  std::atomic<int64_t> beats_{0}, n_{0};
  std::atomic<const char*> what_{""};
  std::thread thread_;
};

struct Result {
  gemtp_status status = GEMTP_OK;
  std::string bytes;
};
using Operation = std::function<Result()>;

bool on = false;  // whether something fails in calls that are tried

void disarm() {
  armed = on = false;
  failing = Failing::kOne;
}
void arm(Cause of, Failing kind, int64_t n) {
  cause = of;
  failing = kind;
  left = n;
  on = true;
}

// A call of the library: the only thing in which anything fails.
template <class Fn>
auto tried(const Fn& fn) {
  armed = on;
  const auto result = fn();
  armed = false;
  return result;
}
#define TRY(call) tried([&] { return call; })

using Held = std::function<int64_t()>;

// Whether a call that something failed in may end like this.
bool excused(gemtp_status status) {
  if (status == GEMTP_OK) return true;
  // A file that cannot be mapped for want of memory is told as such.
  if (cause == Cause::kMemory)
    return status == GEMTP_ERROR_MEMORY ||
           (status == GEMTP_ERROR_FILE && std::strstr(error, std::strerror(ENOMEM)));
  return status == GEMTP_ERROR_FILE;
}

// Returns those of 1 .. all that are tried: all, or at most `most`, of which the first half are the
// first ones, where every step differs, or `only` one.
std::vector<int64_t> chosen(int64_t only, int64_t all, int64_t most) {
  if (only) return {only};
  std::vector<int64_t> out;
  for (int64_t n = 1; n <= std::min(all, std::max(most / 2, int64_t{1})); ++n) out.push_back(n);
  const int64_t first = static_cast<int64_t>(out.size()), left = most - first;
  for (int64_t i = 0; all > first && i < std::min(left, all - first); ++i)
    out.push_back(first + 1 + i * (all - first) / std::min(left, all - first));
  return out;
}

// Runs it with each allocation or use of a file failing in turn, or about `most` of them, and
// without a failure behind every one. held: what has to be the same in the end.
void fail_each_of(Cause of, const std::string& what, const Operation& run, int64_t most,
                  const Held& held) {
  static Watchdog watchdog;
  disarm();
  std::string expected;
  for (int warm = 0; warm < 3; ++warm) {
    const Result result = run();
    REQUIRE(result.status == GEMTP_OK);
    expected = result.bytes;
  }
  arm(of, Failing::kOne, INT64_MAX);
  REQUIRE(run().status == GEMTP_OK);
  const int64_t all = INT64_MAX - left;
  disarm();
  const int64_t held_before = held();
  const char* wish = std::getenv("GEMTP_FAULTS");
  const int64_t only = wish ? std::atoll(wish) : 0;
  if (wish) most = all;
  int64_t errors = 0, tries = 0;
  for (const Failing kind : {Failing::kOne, Failing::kAllFromThere}) {
    for (const int64_t n : chosen(only, all, most)) {
      ++tries;
      CAPTURE(what);
      CAPTURE(n);
      CAPTURE(static_cast<int>(kind));
      CAPTURE(static_cast<int>(of));
      watchdog.at(what.c_str(), n);
      const int64_t live_before = live;
      {
        arm(of, kind, n);
        const Result failed = run();
        disarm();
        errors += failed.status != GEMTP_OK;
        CAPTURE(error);
        CHECK(excused(failed.status));
        if (failed.status == GEMTP_OK || !failed.bytes.empty()) CHECK(failed.bytes == expected);
        const Result again = run();
        CHECK(again.status == GEMTP_OK);
        CHECK(again.bytes == expected);
      }
      const int64_t live_behind = live;
      CHECK(live_behind <= live_before);
      CHECK(held() == held_before);
    }
  }
  if (all > 0)
    std::printf("%-16s %6lld %s, %6lld failed, %6lld errors\n", what.c_str(),
                static_cast<long long>(all), of == Cause::kMemory ? "allocations" : "uses of files",
                static_cast<long long>(tries), static_cast<long long>(errors));
  CHECK((errors > 0 || all == 0));
}

void fail_each(
    const std::string& what, const Operation& run, int64_t most,
    const Held& held = [] { return int64_t{0}; }) {
  fail_each_of(Cause::kMemory, what, run, most, held);
  fail_each_of(Cause::kFile, what, run, most, held);
}

gemtp_status open_model(gemtp_model** model) {
  gemtp_model_options options;
  gemtp_model_options_init(&options, sizeof options);
  options.drafter_path = kDrafter.c_str();
  options.threads = 2;
  options.context = 128;
  options.prefill_chunk = 16;
  return gemtp_model_open(kTarget.c_str(), &options, model, error, sizeof error);
}

#if defined(GEMTP_SANITIZED)  // which takes ten times as long
constexpr int64_t kSample = 20;
#else
constexpr int64_t kSample = 60;
#endif

class Model {
 public:
  Model() { REQUIRE(open_model(&model) == GEMTP_OK); }
  ~Model() { gemtp_model_close(model); }

  /// Each run begins without what an earlier sequence has left.
  void fail_each(const std::string& what, const Operation& run, int64_t most = kSample) {
    ::fail_each(
        what,
        [&] {
          Result out = run();
          gemtp_model_clear_cache(model, error, sizeof error);
          return out;
        },
        most, [&] { return gemtp::models().get(model)->sequences().used(); });
    CHECK(gemtp::models().get(model)->sequences().used() == 0);
  }

  gemtp_model* model = nullptr;
};

// What on_token is told: no memory is asked for.
struct Told {
  int32_t ids[64];
  size_t n = 0;
};

gemtp_generate_options options_of(int64_t max_tokens, Told* told = nullptr) {
  gemtp_generate_options o;
  gemtp_generate_options_init(&o, sizeof o);
  o.max_tokens = max_tokens;
  o.ignore_eos = 1;
  o.temperature = 0.9f;
  o.repetition_penalty = 1.1f;
  o.seed = 5;
  o.logprobs = 2;
  o.wait = 1;
  static const char* stop[] = {"\x01\x02"};
  o.stop = stop;
  o.stop_count = 1;
  o.user = told;
  if (told)
    o.on_token = [](const gemtp_token* token, void* user) {
      auto& t = *static_cast<Told*>(user);
      if (token->id >= 0) t.ids[t.n++] = token->id;
      return 0;
    };
  return o;
}

std::vector<int32_t> tokens_of(gemtp_session* session) {
  std::vector<int32_t> ids(256);
  size_t n = 0;
  REQUIRE(gemtp_session_tokens(session, ids.data(), ids.size(), &n, error, sizeof error) ==
          GEMTP_OK);
  ids.resize(n);
  return ids;
}

std::string bytes_of(const std::vector<int32_t>& ids) {
  return std::string(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof ids[0]);
}

// Runs fn(session, &result) with a session that holds the prompt, and closes that.
template <class Fn>
Result with_session(gemtp_model* model, const Fn& fn) {
  Result out;
  gemtp_session* session = nullptr;
  out.status = TRY(gemtp_session_open(model, &session, error, sizeof error));
  if (out.status == GEMTP_OK)
    out.status = TRY(gemtp_session_append_text(session, kPrompt, GEMTP_STRLEN, GEMTP_ADD_BOS, error,
                                               sizeof error));
  if (out.status == GEMTP_OK) fn(session, &out);
  tried([&] { return gemtp_session_close(session), 0; });
  return out;
}

size_t prompt_tokens(gemtp_model* model) {
  size_t n = 0;
  REQUIRE(gemtp_tokenize(model, kPrompt, GEMTP_STRLEN, GEMTP_ADD_BOS, nullptr, 0, &n, error,
                         sizeof error) == GEMTP_OK);
  return n;
}

// Generates `total` tokens; where that fails, those that are still missing. The result has all.
void generate(gemtp_session* session, int64_t total, Result* out) {
  const std::vector<int32_t> before = tokens_of(session);
  Told told;
  const auto options = options_of(total, &told);
  out->status = TRY(gemtp_session_generate(session, &options, error, sizeof error));
  std::vector<int32_t> seen = before;
  seen.insert(seen.end(), told.ids, told.ids + told.n);
  CHECK(tokens_of(session) == seen);
  if (out->status != GEMTP_OK) {
    const auto rest = options_of(total - static_cast<int64_t>(told.n));
    REQUIRE(gemtp_session_generate(session, &rest, error, sizeof error) == GEMTP_OK);
  }
  out->bytes = bytes_of(tokens_of(session));
}

}  // namespace

TEST_CASE("opening a model") {
  const auto open = [] {
    Result out;
    gemtp_model* model = nullptr;
    out.status = TRY(open_model(&model));
    CHECK((out.status == GEMTP_OK) == (model != nullptr));
    gemtp_model_close(model);
    return out;
  };
  fail_each("open", open, 12);
  const auto estimate = [] {
    Result out;
    gemtp_memory memory{};
    memory.size = sizeof memory;
    out.status = TRY(gemtp_memory_estimate(kTarget.c_str(), nullptr, &memory, error, sizeof error));
    return out;
  };
  fail_each("memory_estimate", estimate, 12);
}

TEST_CASE("text") {
  Model m;
  m.fail_each("tokenize", [&] {
    Result out;
    int32_t ids[200];
    size_t n = 0, length = 0;
    out.status = TRY(gemtp_tokenize(m.model, "for x in é \xF0\x9F\x98\x80:\n\n", GEMTP_STRLEN, 0,
                                    ids, 200, &n, error, sizeof error));
    char text[200];
    if (out.status == GEMTP_OK)
      out.status = TRY(gemtp_detokenize(m.model, ids, n, text, 200, &length, error, sizeof error));
    if (out.status == GEMTP_OK) out.bytes.assign(text, length);
    return out;
  });
  gemtp_model_info info{};
  info.size = sizeof info;
  REQUIRE(gemtp_model_describe(m.model, &info, error, sizeof error) == GEMTP_OK);
  REQUIRE(info.has_chat);
  m.fail_each("chat", [&] {
    Result out;
    gemtp_message messages[2] = {};
    for (gemtp_message& message : messages) message.size = sizeof message;
    messages[0].role = "system";
    messages[0].text = "Be brief.";
    messages[1].role = "user";
    messages[1].text = "What is a <|turn>?";
    messages[0].length = messages[1].length = GEMTP_STRLEN;
    int32_t ids[200];
    size_t n = 0;
    out.status =
        TRY(gemtp_chat_tokens(m.model, messages, 2, nullptr, ids, 200, &n, error, sizeof error));
    if (out.status == GEMTP_OK) out.bytes = bytes_of({ids, ids + n});
    return out;
  });
}

TEST_CASE("a reply goes on with the token that failed") {
  Model m;
  int32_t ids[200];
  size_t n = 0;
  REQUIRE(gemtp_tokenize(m.model,
                         "<|channel>thought\nhm<channel|>yes: é <|tool_call>call:f{a:1}"
                         "<tool_call|> so",
                         GEMTP_STRLEN, GEMTP_PARSE_SPECIAL, ids, 200, &n, error,
                         sizeof error) == GEMTP_OK);
  static char said[4096];
  static size_t length;
  const gemtp_reply_callback say = [](const gemtp_reply_event* e, void*) {
    said[length++] = static_cast<char>('0' + e->part);
    std::memcpy(said + length, e->text, e->length);
    length += e->length;
    return 0;
  };
  m.fail_each("reply", [&] {
    Result out;
    gemtp_reply* reply = nullptr;
    const char* stop[] = {"\x01"};
    length = 0;
    out.status = TRY(gemtp_reply_open(m.model, ids, 1, stop, 1, &reply, error, sizeof error));
    if (out.status != GEMTP_OK) return out;
    gemtp_status first = GEMTP_OK;  // that failed
    for (size_t i = 0; i < n; ++i) {
      int32_t stopped = 0;
      gemtp_status s =
          TRY(gemtp_reply_push(reply, ids[i], say, nullptr, &stopped, error, sizeof error));
      if (s == GEMTP_OK) continue;
      first = s;
      disarm();
      REQUIRE(gemtp_reply_push(reply, ids[i], say, nullptr, &stopped, error, sizeof error) ==
              GEMTP_OK);
    }
    if (TRY(gemtp_reply_finish(reply, say, nullptr, error, sizeof error)) != GEMTP_OK) {
      first = GEMTP_ERROR_MEMORY;
      disarm();
      REQUIRE(gemtp_reply_finish(reply, say, nullptr, error, sizeof error) == GEMTP_OK);
    }
    out.status = first;
    out.bytes.assign(said, length);
    gemtp_reply_close(reply);
    return out;
  });
}

TEST_CASE("a guest of the K/V memory") {
  Model m;
  m.fail_each("guest", [&] {
    Result out;
    armed = on;
    try {
      gemtp::SequencePool::Guest guest(gemtp::models().get(m.model)->sequences());
      guest.take({2, 5, 6}, {});
    } catch (const std::bad_alloc&) {
      out.status = GEMTP_ERROR_MEMORY;
    }
    armed = false;
    return out;
  });
}

TEST_CASE("sessions") {
  Model m;
  m.fail_each("generate", [&] {
    return with_session(m.model,
                        [](gemtp_session* session, Result* out) { generate(session, 24, out); });
  });
  m.fail_each("step", [&] {
    return with_session(m.model, [](gemtp_session* session, Result* out) {
      const size_t before = tokens_of(session).size();
      const auto options = options_of(24);
      out->status = TRY(gemtp_session_begin(session, &options, error, sizeof error));
      gemtp_finish finish = GEMTP_UNFINISHED;
      while (out->status == GEMTP_OK && finish == GEMTP_UNFINISHED) {
        const size_t known = tokens_of(session).size();
        size_t n = 0, given = 0;
        out->status = TRY(gemtp_session_step(session, &n, &finish, error, sizeof error));
        for (size_t i = 0; out->status == GEMTP_OK && i < n; ++i) {
          gemtp_token token{};
          token.size = sizeof token;
          REQUIRE(gemtp_session_emitted(session, i, &token, error, sizeof error) == GEMTP_OK);
          CHECK(token.top_count == (token.id < 0 ? 0 : 2));
          given += token.id >= 0;
        }
        CHECK(tokens_of(session).size() == known + given);
      }
      gemtp_token none{};
      none.size = sizeof none;
      if (out->status != GEMTP_OK)  // of a step that failed there is none
        CHECK(gemtp_session_emitted(session, 0, &none, error, sizeof error) ==
              GEMTP_ERROR_ARGUMENT);
      const size_t made = tokens_of(session).size() - before;
      const auto rest = options_of(24 - static_cast<int64_t>(made));
      if (made < 24)
        REQUIRE(gemtp_session_generate(session, &rest, error, sizeof error) == GEMTP_OK);
      out->bytes = bytes_of(tokens_of(session));
    });
  });
  m.fail_each("fork, rewind", [&] {
    return with_session(m.model, [](gemtp_session* session, Result* out) {
      const auto options = options_of(8);
      REQUIRE(gemtp_session_generate(session, &options, error, sizeof error) == GEMTP_OK);
      const std::vector<int32_t> tokens = tokens_of(session);
      gemtp_session* fork = nullptr;
      out->status = TRY(gemtp_session_fork(session, &fork, error, sizeof error));
      CHECK(tokens_of(session) == tokens);
      const auto length = static_cast<int64_t>(tokens.size()) - 5;
      if (out->status == GEMTP_OK)
        out->status = TRY(gemtp_session_rewind(fork, length, error, sizeof error));
      if (out->status == GEMTP_OK)
        out->status =
            TRY(gemtp_session_assign(fork, tokens.data(), tokens.size() - 2, error, sizeof error));
      if (out->status == GEMTP_OK) generate(fork, 10, out);
      gemtp_session_close(fork);
    });
  });
}

TEST_CASE("session files") {
  Model m;
  const std::string path =
      (std::filesystem::temp_directory_path() / "gemtp-fault-session").string();
  m.fail_each("save, restore", [&] {
    return with_session(m.model, [&](gemtp_session* session, Result* out) {
      const auto options = options_of(8);
      REQUIRE(gemtp_session_generate(session, &options, error, sizeof error) == GEMTP_OK);
      out->status = TRY(gemtp_session_save(session, path.c_str(), error, sizeof error));
      gemtp_session* restored = nullptr;
      if (out->status == GEMTP_OK)
        out->status =
            TRY(gemtp_session_restore(m.model, path.c_str(), &restored, error, sizeof error));
      if (out->status == GEMTP_OK) generate(restored, 10, out);
      gemtp_session_close(restored);
    });
  });
  std::filesystem::remove(path);
}

TEST_CASE("a constraint") {
  Model m;
  gemtp_model_info info{};
  info.size = sizeof info;
  REQUIRE(gemtp_model_describe(m.model, &info, error, sizeof error) == GEMTP_OK);
  // Every other token, and one of them is forced now and then.
  static int64_t at;
  gemtp_constraint constraint{};
  constraint.size = sizeof constraint;
  constraint.push = [](const int32_t*, size_t n, void*) {
    at += static_cast<int64_t>(n);
    return 0;
  };
  constraint.pop = [](size_t n, void*) {
    at -= static_cast<int64_t>(n);
    return 0;
  };
  constraint.mask = [](uint32_t* words, size_t n, void*) {
    for (size_t i = 0; i < n; ++i) words[i] = 0x55555555u;
    return 0;
  };
  m.fail_each("constraint", [&] {
    return with_session(m.model, [&](gemtp_session* session, Result* out) {
      at = 0;
      auto options = options_of(12);
      options.constraint = &constraint;
      options.wait = 0;
      out->status = TRY(gemtp_session_generate(session, &options, error, sizeof error));
      if (out->status == GEMTP_OK) out->bytes = bytes_of(tokens_of(session));
    });
  });
}

TEST_CASE("sessions that share passes") {
  Model m;
  constexpr size_t kThreads = 3;
  m.fail_each(
      "shared passes",
      [&] {
        Result all;
        gemtp_session* sessions[kThreads] = {};
        gemtp_status statuses[kThreads] = {};
        for (gemtp_session*& session : sessions) {
          REQUIRE(gemtp_session_open(m.model, &session, error, sizeof error) == GEMTP_OK);
          REQUIRE(gemtp_session_append_text(session, kPrompt, GEMTP_STRLEN, GEMTP_ADD_BOS, error,
                                            sizeof error) == GEMTP_OK);
        }
        {
          std::barrier begin(kThreads + 1), end(kThreads + 1);
          std::vector<std::thread> threads;
          for (size_t i = 0; i < kThreads; ++i)
            threads.emplace_back([&, i] {
              const auto options = options_of(10 + static_cast<int64_t>(i));
              begin.arrive_and_wait();
              statuses[i] = gemtp_session_generate(sessions[i], &options, nullptr, 0);
              end.arrive_and_wait();
            });
          armed = on;
          begin.arrive_and_wait();
          end.arrive_and_wait();
          armed = false;
          for (std::thread& t : threads) t.join();
        }
        for (size_t i = 0; i < kThreads; ++i) {
          if (statuses[i] != GEMTP_OK) all.status = statuses[i];
          // The prompt may have been all: what is missing now goes on as it would have.
          const auto made = static_cast<int64_t>(tokens_of(sessions[i]).size());
          const auto wanted = static_cast<int64_t>(prompt_tokens(m.model) + 10 + i);
          const auto rest = options_of(wanted - made);
          if (made < wanted)
            REQUIRE(gemtp_session_generate(sessions[i], &rest, error, sizeof error) == GEMTP_OK);
          all.bytes += bytes_of(tokens_of(sessions[i]));
          gemtp_session_close(sessions[i]);
        }
        return all;
      },
      25);
}
