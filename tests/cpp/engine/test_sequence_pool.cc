#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "engine/sequence_pool.h"

using namespace gemtp;

namespace {

using Taken = std::unique_ptr<Sequence>;
const std::vector<int32_t> kPrompt{2, 5, 6};

struct Pool {
  Pool() : pool(open(), budget_of(2)) {}

  static OpenedModel& open() {
    static OpenedModel model(
        ModelFiles::open(GEMTP_SOURCE_DIR "/python/gemtp_native/data/target.gguf", ""), options());
    return model;
  }
  static EngineOptions options() {
    EngineOptions o;
    o.threads = 1;
    o.context = 64;
    return o;
  }
  static int64_t budget_of(int sequences) {
    SequencePool all(open(), 0);
    const Taken one = all.make();
    return sequences * all.used();
  }

  SequencePool pool;
};

ErrorKind error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.kind();
  }
  return ErrorKind::kInternal;
}

// A guest on a thread of its own.
class Waiting {
 public:
  Waiting(SequencePool& pool, std::vector<int>* order, int number)
      : guest_(pool), thread_([this, order, number] {
          error = error_of([&] {
            taken = guest_.take(kPrompt, [this] { polled = true; });
            order->push_back(number);  // one at a time: the next waits for this one's end
          });
          ended = true;
        }) {
    while (!polled && !ended) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ~Waiting() {
    if (thread_.joinable()) thread_.join();
  }
  void cancel() { guest_.cancel(); }
  void join() { thread_.join(); }

  Taken taken;
  ErrorKind error = ErrorKind::kInternal;
  std::atomic<bool> polled{false}, ended{false};

 private:
  SequencePool::Guest guest_;
  std::thread thread_;
};

}  // namespace

TEST_CASE_FIXTURE(Pool, "who waits is served in the order of coming, and nobody overtakes") {
  SequencePool::Guest guest(pool);
  Taken one = guest.take(kPrompt, {}), two = pool.take(kPrompt);
  CHECK(error_of([&] { pool.make(); }) == ErrorKind::kMemory);
  std::vector<int> order;
  std::vector<std::unique_ptr<Waiting>> waiting;
  for (int i = 0; i < 4; ++i) {
    // A guest that this thread has does not sleep on it.
    waiting.push_back(std::make_unique<Waiting>(pool, &order, i));
  }
  one.reset();
  for (int i = 0; i < 4; ++i) {
    Waiting& w = *waiting[static_cast<size_t>(i)];
    w.join();
    REQUIRE(w.taken);
    CHECK(order.size() == static_cast<size_t>(i) + 1);
    CHECK(order.back() == i);
    if (i < 3) CHECK(error_of([&] { pool.take(kPrompt); }) == ErrorKind::kMemory);
    pool.give_back(std::move(w.taken));
  }
  CHECK(pool.take(kPrompt));
}

TEST_CASE("a guest that comes and finds memory is in nobody's way") {
  SequencePool pool(Pool::open(), Pool::budget_of(8));
  std::atomic<int> rounds{0};
  std::thread guests([&] {
    for (; rounds < 5000; ++rounds) SequencePool::Guest(pool).take({2, 100 + rounds % 50, 7}, {});
  });
  int refused = 0;
  while (rounds < 5000)
    if (error_of([&] { pool.take(kPrompt); }) == ErrorKind::kMemory) ++refused;
  guests.join();
  CHECK(refused == 0);
}

TEST_CASE_FIXTURE(Pool, "waiting ends when it is cancelled, and when what it calls throws") {
  SequencePool::Guest guest(pool);
  const Taken one = guest.take(kPrompt, {}), two = pool.make();
  std::vector<int> order;
  Waiting waiting(pool, &order, 0);
  waiting.cancel();
  waiting.join();
  CHECK(waiting.error == ErrorKind::kCancelled);
  std::thread([&] {
    SequencePool::Guest impatient(pool);
    CHECK_THROWS_AS(impatient.take(kPrompt, [] { throw std::string("mine"); }), std::string);
  }).join();
  SequencePool::Guest late(pool);
  late.cancel();
  CHECK(error_of([&] { late.take(kPrompt, {}); }) == ErrorKind::kCancelled);
}

TEST_CASE_FIXTURE(Pool, "a sequence is waited for although the thread that took it has ended") {
  const Taken held_open = pool.make();
  Taken taken;
  std::thread([&] { taken = SequencePool::Guest(pool).take(kPrompt, {}); }).join();
  std::vector<int> order;
  Waiting waiting(pool, &order, 0);  // on a thread that may have the ended one's std::thread::id
  taken.reset();
  waiting.join();
  CHECK(waiting.taken);
}

TEST_CASE_FIXTURE(Pool, "nobody waits for what cannot end") {
  // Those that are held open.
  Taken one = pool.make(), two = pool.make();
  CHECK(error_of([&] { SequencePool::Guest(pool).take(kPrompt, {}); }) == ErrorKind::kMemory);
  // One's own.
  two.reset();
  SequencePool::Guest guest(pool);
  two = guest.take(kPrompt, {});
  CHECK(error_of([&] { SequencePool::Guest(pool).take(kPrompt, {}); }) == ErrorKind::kMemory);
  // That of one who waits: this one learns it while it waits.
  std::vector<int> order;
  Waiting waiting(pool, &order, 0);
  CHECK(error_of([&] { SequencePool::Guest(pool).take(kPrompt, {}); }) == ErrorKind::kMemory);
  waiting.join();
  CHECK(waiting.error == ErrorKind::kMemory);
  two.reset();
  CHECK(pool.make());
}

// One call copies the beginning of an idle sequence, another wants memory at that moment.
TEST_CASE("the memory of an idle sequence that is being copied is not missing") {
  EngineOptions options = Pool::options();
  options.context = 512;
  options.prefill_chunk = 400;
  OpenedModel model(ModelFiles::open(GEMTP_SOURCE_DIR "/python/gemtp_native/data/target.gguf", ""),
                    options);
  const std::vector<int32_t> text(400, 7);
  std::vector<int32_t> other(text.begin(), text.begin() + 330);
  other.push_back(8);
  for (int round = 0; round < 100; ++round) {
    SequencePool all(model, 0);
    Taken idle = all.make();
    SequencePool pool(model, 2 * all.used());
    idle = pool.make();
    model.target().forward(idle->rows(text.data(), 400, 0, HeadOutput::kNone), {});
    idle->appended(text.data(), 400);
    pool.give_back(std::move(idle));
    std::atomic<bool> begun{false}, done{false};
    std::thread copying([&] {
      while (!begun) std::this_thread::yield();
      const Taken copy = pool.take(other);
      while (!done) std::this_thread::yield();
    });
    begun = true;
    while (pool.used() < pool.budget()) std::this_thread::yield();
    const bool refused = error_of([&] { pool.make(); }) == ErrorKind::kMemory;
    done = true;
    copying.join();
    REQUIRE_FALSE(refused);
  }
}
