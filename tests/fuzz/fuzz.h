// What the fuzz targets share. A target feeds bytes of a stranger to one reader and states what
// must hold of it, besides not crashing: a refusal is one sentence for a user, and never a broken
// invariant of our own code.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "text/tokenizer.h"

namespace gemtp::fuzzing {

using Data = FuzzedDataProvider;

/// Ends the process if an invariant does not hold, so that libFuzzer keeps the input.
#define FUZZ_CHECK(e) ((e) ? (void)0 : ::gemtp::fuzzing::broken(#e, __FILE__, __LINE__))
[[noreturn]] void broken(const char* invariant, const char* file, int line);

/// Checks that a text is valid UTF-8.
void check_text(std::string_view text);
/// Checks that a message is a sentence for a terminal: one line of valid UTF-8 without control
/// characters.
void check_sentence(std::string_view message);

/// Runs `read`, and checks that it returns or throws an Error whose sentence is one, and whose kind
/// is among `kinds`; without kinds any but kInternal. Returns whether it was refused.
bool refused(const std::function<void()>& read, std::initializer_list<ErrorKind> kinds = {});

/// A file in memory, with a path.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

/// Returns the bytes of a file, which must exist.
std::string file_bytes(const std::string& path);
/// Path of a model of the corpus: build/fuzz/models/NAME.gguf, or in $GEMTP_FUZZ_MODELS.
std::string model_path(const std::string& name);
/// The tokenizer of the shipped target.
const Tokenizer& shipped_tokenizer();
/// A small target with its drafter, opened once: one thread, 64 positions, prefill in chunks of 16.
std::shared_ptr<Engine> small_engine();

/// A float of any kind: special, any bits, or of an ordinary size.
float any_float(Data& data);
double any_double(Data& data);
/// A text of up to `longest` bytes, valid UTF-8, in which some of `words` may occur.
std::string any_text(Data& data, size_t longest, const std::vector<std::string>& words = {});

}  // namespace gemtp::fuzzing
