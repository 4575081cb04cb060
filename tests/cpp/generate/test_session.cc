#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "generate/session.h"

using namespace gemtp;

namespace {

std::shared_ptr<Engine> open_demo(EngineOptions options = {}) {
  const std::string data = GEMTP_SOURCE_DIR "/python/gemtp_native/data/";
  options.threads = 2;
  options.context = 256;
  options.prefill_chunk = 32;
  return Engine::open(data + "target.gguf", data + "drafter.gguf", options);
}

const std::string kPrompt = "def mean(values):\n    total = 0\n    for value in values:\n";

GenerationParams params(int64_t max_tokens, float temperature = 0.8f) {
  GenerationParams p;
  p.max_tokens = max_tokens;
  p.ignore_eos = true;
  p.sampling.temperature = temperature;
  p.sampling.repetition_penalty = 1.1f;
  p.draft = 3;
  return p;
}

std::unique_ptr<Session> begun(const std::shared_ptr<Engine>& engine) {
  auto t = std::make_unique<Session>(engine);
  t->append(engine->model().need_tokenizer().encode(kPrompt, true, false));
  return t;
}

// Generates until the session has `length` tokens, however the rounds fall.
void grow(Session& t, size_t length) {
  t.begin(params(static_cast<int64_t>(length - t.tokens().size())));
  while (t.generating()) t.step();
  REQUIRE(t.tokens().size() == length);
}

// Stops as soon as there are `length` tokens: mostly in the middle of a round.
void grow_and_stop(Session& t, size_t length) {
  t.begin(params(100));
  while (t.tokens().size() < length) t.step();
  t.rewind(static_cast<int64_t>(length));
}

std::string temporary(const char* name) {
  return (std::filesystem::temp_directory_path() / name).string();
}

}  // namespace

TEST_CASE("a session that is stopped, forked, rewound, saved and restored goes on the same") {
  const auto engine = open_demo();
  const auto whole = begun(engine);
  grow(*whole, 120);
  const std::vector<int32_t> expected = whole->tokens();
  const size_t prompt = engine->model().need_tokenizer().encode(kPrompt, true, false).size();

  for (const size_t stop : {prompt + 1, prompt + 2, prompt + 18}) {
    CAPTURE(stop);
    const auto t = begun(engine);
    grow_and_stop(*t, stop);
    CHECK(t->cached() >= static_cast<int64_t>(stop) - 1);
    const std::string path = temporary("gemtp_session_test.session");
    t->save(path);
    const auto fork = t->fork();
    const auto restored = Session::restore(open_demo(), path);
    CHECK(restored->tokens() == t->tokens());
    CHECK(restored->cached() == t->cached());
    for (Session* each : {t.get(), fork.get(), restored.get()}) {
      grow(*each, 120);
      CHECK(each->tokens() == expected);
    }
    t->rewind(static_cast<int64_t>(stop));
    grow(*t, 120);
    CHECK(t->tokens() == expected);
    std::remove(path.c_str());
  }
}

TEST_CASE("a session can be forked between the steps of a generation") {
  const auto engine = open_demo();
  const auto whole = begun(engine);
  grow(*whole, 100);
  const auto t = begun(engine);
  t->begin(params(static_cast<int64_t>(100 - t->tokens().size())));
  int forks = 0;
  while (t->generating()) {
    t->step();
    if (t->tokens().size() >= 100 || forks++ % 4) continue;
    const auto fork = t->fork();
    grow(*fork, 100);
    CHECK(fork->tokens() == whole->tokens());
  }
  CHECK(t->tokens() == whole->tokens());
  CHECK(forks > 4);
}

TEST_CASE("a session cut back beyond what its rings hold runs its tokens again") {
  const auto engine = open_demo();
  const auto t = begun(engine);
  grow(*t, 250);
  const std::vector<int32_t> all = t->tokens();
  t->rewind(20);
  CHECK(t->cached() <= 20);
  const auto other = std::make_unique<Session>(open_demo());
  other->append({all.begin(), all.begin() + 20});
  grow(*t, 90);
  grow(*other, 90);
  CHECK(t->tokens() == other->tokens());
}

TEST_CASE("files that are no session of this model are refused") {
  const auto engine = open_demo();
  const auto t = begun(engine);
  grow_and_stop(*t, 60);
  const std::string path = temporary("gemtp_session_refused.session");
  t->save(path);
  std::string bytes;
  {
    std::ifstream in(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  const auto refused = [&](const std::string& content, ErrorKind kind) {
    {
      std::ofstream out(path, std::ios::binary);
      out.write(content.data(), static_cast<std::streamsize>(content.size()));
    }
    try {
      Session::restore(engine, path);
      FAIL("restored");
    } catch (const Error& e) {
      CHECK(e.kind() == kind);
      CHECK(std::string(e.what()).find("gemtp_session_refused") != std::string::npos);
    }
  };
  for (size_t n = 0; n < bytes.size(); n += n < 400 ? 1 : bytes.size() / 37)
    refused(bytes.substr(0, n), ErrorKind::kFile);
  refused(bytes + "x", ErrorKind::kFile);
  const auto changed = [&](size_t at, char to) {
    std::string copy = bytes;
    copy[at] = to;
    return copy;
  };
  refused(changed(0, 'g'), ErrorKind::kFile);
  refused(changed(8, 1), ErrorKind::kFile);                                   // version: of 0.1
  refused(changed(8, 9), ErrorKind::kFile);                                   // of another build
  refused(changed(16, static_cast<char>(bytes[16] + 1)), ErrorKind::kModel);  // fingerprint
  refused(changed(12, 0), ErrorKind::kModel);                                 // f32
  refused(changed(31, 0x7f), ErrorKind::kContext);                            // tokens
  refused(changed(39, -1), ErrorKind::kFile);                                 // cached
  refused(changed(47, 0x7f), ErrorKind::kFile);                               // oldest
  refused(changed(51, 0x7f), ErrorKind::kFile);                               // a token's id
  refused(changed(bytes.size() / 2, static_cast<char>(~bytes[bytes.size() / 2])), ErrorKind::kFile);
  std::remove(path.c_str());
  CHECK_THROWS_AS(Session::restore(engine, path), Error);
  CHECK_THROWS_AS(t->save("/nowhere/at/all"), Error);
  EngineOptions f32;
  f32.kv_f16 = false;
  t->save(path);
  CHECK_THROWS_AS(Session::restore(open_demo(f32), path), Error);
  std::remove(path.c_str());
}

TEST_CASE("the budget bounds sequences in use, and drops earlier ones first") {
  EngineOptions options;
  const int64_t one = [&] {
    const auto engine = open_demo();
    const auto t = begun(engine);
    grow(*t, 60);
    return engine->sequences().budget() / 16;
  }();
  options.kv_budget = 2 * one;
  const auto engine = open_demo(options);
  for (int i = 0; i < 5; ++i) {  // ended ones make room
    const auto t = std::make_unique<Session>(engine);
    t->append({2, 100 + i, 200});
    grow(*t, 40);
  }
  const auto a = begun(engine), b = std::make_unique<Session>(engine),
             c = std::make_unique<Session>(engine);
  b->append({2, 77});
  c->append({2, 78});
  grow(*a, 60);
  grow(*b, 60);
  CHECK_THROWS_AS(c->begin(params(8)), Error);
  b->rewind(0);
  CHECK(c->tokens().size() == 2);
  options.kv_budget = one / 2;
  CHECK_THROWS_AS(open_demo(options), Error);
}

TEST_CASE("a step of a generation that was ended gives nothing") {
  const auto t = begun(open_demo());
  const auto length = static_cast<int64_t>(t->tokens().size());
  for (int way = 0; way < 3; ++way) {
    t->begin(params(20));
    t->step();
    if (way == 0) t->end();
    if (way == 1) t->rewind(length - 3);
    if (way == 2) t->append({5, 6, 7});
    const std::vector<int32_t> before = t->tokens();
    CHECK(t->step().empty());
    CHECK(t->tokens() == before);
    CHECK(t->generation()->finish_reason() == FinishReason::kCancelled);
  }
}
