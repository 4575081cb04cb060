#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>

namespace gemtp::fuzzing {

void broken(const char* invariant, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: this does not hold: %s\n", file, line, invariant);
  std::abort();
}

void check_text(std::string_view text) {
  FUZZ_CHECK(find_invalid_utf8(text) == std::string_view::npos);
}

void check_sentence(std::string_view message) {
  FUZZ_CHECK(!message.empty());
  check_text(message);
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F)
      std::fprintf(stderr, "the message: %.*s\n", static_cast<int>(message.size()), message.data());
    FUZZ_CHECK(byte >= 0x20 && byte != 0x7F);
  }
}

bool refused(const std::function<void()>& read, std::initializer_list<ErrorKind> kinds) {
  try {
    read();
    return false;
  } catch (const Error& e) {
    check_sentence(e.what());
    const bool expected = kinds.size() == 0
                              ? e.kind() != ErrorKind::kInternal
                              : std::find(kinds.begin(), kinds.end(), e.kind()) != kinds.end();
    if (!expected)
      std::fprintf(stderr, "an error of kind %d: %s\n", static_cast<int>(e.kind()), e.what());
    FUZZ_CHECK(expected);
    return true;
  }
}

MemoryFile::MemoryFile(std::string_view bytes) : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
  FUZZ_CHECK(fd_ >= 0);
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    FUZZ_CHECK(written > 0);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  path_ = "/proc/self/fd/" + std::to_string(fd_);
}

MemoryFile::~MemoryFile() { close(fd_); }

std::string file_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    std::fprintf(stderr, "%s is missing; make it with python tests/fuzz/corpus.py\n", path.c_str());
    std::exit(1);
  }
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string model_path(const std::string& name) {
  const char* folder = std::getenv("GEMTP_FUZZ_MODELS");
  return std::string(folder ? folder : GEMTP_SOURCE_DIR "/build/fuzz/models") + "/" + name +
         ".gguf";
}

const Tokenizer& shipped_tokenizer() {
  static const Tokenizer tokenizer(
      *GgufFile::open(GEMTP_SOURCE_DIR "/python/gemtp_native/data/target.gguf"));
  return tokenizer;
}

std::shared_ptr<Engine> small_engine() {
  static const std::shared_ptr<Engine> engine = [] {
    EngineOptions options;
    options.threads = 1;
    options.context = 64;
    options.prefill_chunk = 16;
    return Engine::open(model_path("sound-target"), model_path("sound-drafter"), options);
  }();
  return engine;
}

double any_double(Data& data) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  switch (data.ConsumeIntegralInRange(0, 4)) {
    case 0:
      return std::bit_cast<double>(data.ConsumeIntegral<uint64_t>());
    case 1:
      return data.PickValueInArray<double>({0, -0.0, -1, 1, 1e-308, 5e-324, 1e308, -1e308, 1e-9,
                                            1e9, kInfinity, -kInfinity, std::nan("")});
    case 2:
      return data.ConsumeFloatingPointInRange<double>(0, 1);
    default:
      return data.ConsumeFloatingPointInRange<double>(-30, 30);
  }
}

float any_float(Data& data) {
  if (data.ConsumeBool()) return data.ConsumeFloatingPointInRange<float>(-4, 4);
  if (data.ConsumeBool()) return std::bit_cast<float>(data.ConsumeIntegral<uint32_t>());
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return data.PickValueInArray<float>({0, -0.0f, 1, -1, 1e-45f, 1e-38f, 1e-12f, 1e6f, 65504, 65520,
                                       3.4e38f, -3.4e38f, kInfinity, -kInfinity, std::nanf("")});
}

std::string any_text(Data& data, size_t longest, const std::vector<std::string>& words) {
  std::string text;
  while (data.remaining_bytes() > 0 && text.size() < longest && data.ConsumeBool()) {
    if (!words.empty() && data.ConsumeBool()) {
      text += words[data.ConsumeIntegralInRange<size_t>(0, words.size() - 1)];
      continue;
    }
    const std::string part = data.ConsumeRandomLengthString(longest - text.size());
    text += part.substr(0, std::min(part.size(), find_invalid_utf8(part)));
  }
  return text;
}

}  // namespace gemtp::fuzzing
