// The bytes of a file that calls itself a GGUF: every value and tensor is read, then the
// configuration and the tokenizer.
#include <algorithm>

#include "fuzz.h"
#include "gguf/reader.h"
#include "gguf_edits.h"
#include "model/config.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

void read_value(const GgufFile& file, const std::string& key) {
  const auto read = [](const std::function<void()>& get) { refused(get, {ErrorKind::kFile}); };
  read([&] { file.get_uint(key); });
  read([&] { file.get_int(key); });
  read([&] { file.get_float(key); });
  read([&] { file.get_bool(key); });
  read([&] {
    if (const auto text = file.get_string(key)) check_text(*text);
  });
  read([&] { file.get_ints(key); });
  read([&] { file.get_floats(key); });
  read([&] {
    if (const auto strings = file.get_strings(key))
      FUZZ_CHECK(strings->size() == file.find(key)->count);
  });
}

void read_tensors(const GgufFile& file) {
  for (const Tensor& tensor : file.tensors()) {
    FUZZ_CHECK(tensor.shape.size() >= 1 && tensor.shape.size() <= 4);
    FUZZ_CHECK(tensor.elements() > 0);
    FUZZ_CHECK(file.find_tensor(tensor.name) == &tensor);
    // Opening has checked that the bytes are there.
    FUZZ_CHECK(file.bytes_of(tensor, 64).size() == std::min<uint64_t>(64, tensor.bytes));
    if (tensor.bytes < 1 << 20) FUZZ_CHECK(file.bytes_of(tensor).size() == tensor.bytes);
  }
}

void use_tokenizer(const GgufFile& file) {
  const Tokenizer tokenizer(file);
  for (const char* text :
       {"", "the <bos> hello\n\n w\xC3\xB6rld \xF0\x9F\x98\x80<|turn>", "in and on "}) {
    const std::vector<int32_t> ids = tokenizer.encode(text, true, true);
    for (const int32_t id : ids) FUZZ_CHECK(id >= 0 && id < tokenizer.vocab_size());
    check_text(tokenizer.decode(ids, true));
  }
  for (int32_t id = 0; id < std::min(tokenizer.vocab_size(), 64); ++id)
    tokenizer.token_bytes(id, true);
  for (const int32_t id : tokenizer.end_tokens())
    FUZZ_CHECK(id >= 0 && id < tokenizer.vocab_size());
  for (const int32_t id : tokenizer.suppressed())
    FUZZ_CHECK(id >= 0 && id < tokenizer.vocab_size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile bytes({reinterpret_cast<const char*>(data), size});
  std::shared_ptr<const GgufFile> file;
  if (refused([&] { file = GgufFile::open(bytes.path()); },
              {ErrorKind::kFile, ErrorKind::kModel, ErrorKind::kMemory}))
    return 0;
  for (const std::string& key : file->keys()) read_value(*file, key);
  read_tensors(*file);
  refused([&] { read_config(*file); }, {ErrorKind::kFile, ErrorKind::kModel});
  Problems problems;
  refused([&] { read_config(*file, &problems); }, {ErrorKind::kFile, ErrorKind::kModel});
  for (const std::string& problem : problems.sentences()) check_sentence(problem);
  refused([&] { use_tokenizer(*file); }, {ErrorKind::kFile, ErrorKind::kModel});
  return 0;
}

/// Mostly edits a file that parses, behind its counts: bytes changed anywhere else seldom pass the
/// first checks.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  return mutate_gguf(data, size, most, seed);
}
