// Session files, edited and mostly with their checksum repaired, so that the edits get past it. A
// session that is restored goes on.
#include <algorithm>
#include <cstring>

#include "base/hash.h"
#include "fuzz.h"
#include "generate/session.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

constexpr size_t kHeader = 48;  // session_file.cc; then the tokens, the cache, the checksum
constexpr size_t kSum = sizeof(uint64_t);

GenerationParams params(int64_t max_tokens, float temperature = 0) {
  GenerationParams p;
  p.max_tokens = max_tokens;
  p.ignore_eos = true;
  p.draft = 3;
  p.sampling.temperature = temperature;
  return p;
}

void generate(Session& session, const GenerationParams& p) {
  session.begin(p);
  while (session.generating()) session.step();
}

// A session of 38 tokens, without its checksum.
const std::string& sound() {
  static const std::string bytes = [] {
    Session session(small_engine());
    session.append({2, 5, 9, 100, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20});
    generate(session, params(20));
    const std::string path =
        format("/tmp/gemtp-fuzz-%p.session", static_cast<const void*>(&session));
    session.save(path);
    std::string saved = file_bytes(path);
    std::remove(path.c_str());
    saved.resize(saved.size() - kSum);
    return saved;
  }();
  return bytes;
}

void edit(std::string* bytes, Data& data) {
  const size_t last = bytes->size() - 1;
  switch (data.ConsumeIntegralInRange(0, 5)) {
    case 0: {  // tokens, cached, oldest
      const int64_t value = data.ConsumeBool() ? data.ConsumeIntegral<int64_t>()
                                               : data.ConsumeIntegralInRange<int64_t>(-2, 70);
      std::memcpy(bytes->data() + data.PickValueInArray<size_t>({24, 32, 40}), &value,
                  sizeof value);
      break;
    }
    case 1:
      (*bytes)[data.ConsumeIntegralInRange<size_t>(0, last)] = data.ConsumeIntegral<char>();
      break;
    case 2: {  // keys and values that are no numbers, or large ones
      const auto half =
          data.PickValueInArray<uint16_t>({0x7C00, 0xFC00, 0x7E00, 0x7BFF, 0, 0x8000, 1});
      size_t at = data.ConsumeIntegralInRange<size_t>(std::min(kHeader, last), last);
      for (int n = 0; n < 32 && at + sizeof half <= bytes->size(); ++n, at += sizeof half)
        std::memcpy(bytes->data() + at, &half, sizeof half);
      break;
    }
    case 3:
      bytes->resize(data.ConsumeIntegralInRange<size_t>(std::min(kHeader, last), bytes->size()));
      break;
    case 4:
      *bytes += data.ConsumeRandomLengthString(64);
      break;
    default: {
      const auto token = data.ConsumeIntegralInRange<int32_t>(-1, 400);
      const size_t at = kHeader + sizeof token * data.ConsumeIntegralInRange<size_t>(0, 37);
      if (at + sizeof token <= bytes->size()) std::memcpy(bytes->data() + at, &token, sizeof token);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Data data(bytes, size);
  std::string file = sound();
  for (int n = data.ConsumeIntegralInRange(0, 8); n > 0; --n) edit(&file, data);
  const bool changed = file != sound();
  const bool repaired = data.ConsumeIntegralInRange(0, 9) != 0;
  if (repaired) {
    Hash64 hash;
    hash.add(file.data(), file.size());
    const uint64_t sum = hash.value();
    file.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  }
  const MemoryFile saved(file);
  const bool was_refused = refused([&] {
    const auto session = Session::restore(small_engine(), saved.path());
    FUZZ_CHECK(session->cached() <= static_cast<int64_t>(session->tokens().size()));
    if (session->tokens().empty()) return;
    generate(*session, params(5, data.ConsumeBool() ? 0.8f : 0.0f));
    const auto fork = session->fork();
    FUZZ_CHECK(fork->tokens() == session->tokens());
    session->rewind(static_cast<int64_t>(session->tokens().size() / 2));
    if (!session->tokens().empty()) generate(*session, params(2));
    generate(*fork, params(2));
  });
  if (!changed && repaired) FUZZ_CHECK(!was_refused);
  if (!repaired && !changed) FUZZ_CHECK(was_refused);  // its checksum is missing
  return 0;
}
