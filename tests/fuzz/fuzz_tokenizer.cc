// Texts of strangers, tokenized by the shipped vocabulary and by small ones that `data` makes up.
#include <algorithm>
#include <bit>
#include <memory>
#include <unordered_set>

#include "fuzz.h"
#include "gguf_edits.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

const std::vector<std::string> kWords = {
    "<bos>",   "<|turn>", "<turn|>", "<|channel>", "<0x41>", "\n\n", "\xE2\x96\x81",
    " ",       "   ",     "def ",    "<|\"|>",     "<eos>",  "\r\n", "\xF0\x9F\x98\x80",
    "<unused>"};

template <class T>
void put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

// The small model with a vocabulary of `data`'s: some tokens, merges and types are others.
std::string with_edited_vocabulary(Data& data) {
  static const GgufParts sound = GgufParts::of(model_path("sound-target"));
  GgufParts parts;
  for (GgufParts::Key key : sound.keys) {
    if (!key.name.starts_with("tokenizer.ggml.") && key.name != "general.architecture") continue;
    if (key.value.size() > 12 && key.name != "general.architecture" && data.ConsumeBool()) {
      for (int n = data.ConsumeIntegralInRange(1, 4); n > 0; --n)
        key.value[data.ConsumeIntegralInRange<size_t>(12, key.value.size() - 1)] =
            data.ConsumeIntegral<char>();
    }
    parts.keys.push_back(std::move(key));
  }
  return parts.bytes();
}

void check_round_trip(const Tokenizer& tokenizer, const std::string& text) {
  for (const bool special : {false, true}) {
    const std::vector<int32_t> ids = tokenizer.encode(text, false, special);
    FUZZ_CHECK(ids.size() <= text.size());  // a token has at least one byte
    std::string bytes;
    for (const int32_t id : ids) {
      FUZZ_CHECK(id >= 0 && id < tokenizer.vocab_size());
      if (!special) FUZZ_CHECK(tokenizer.token_type(id) != TokenType::kControl);
      bytes += tokenizer.token_bytes(id, true);
    }
    check_text(tokenizer.decode(ids, false));
    StreamDecoder decoder(tokenizer, true);
    std::string streamed;
    for (const int32_t id : ids) {
      const std::string piece = decoder.push(id);
      check_text(piece);
      streamed += piece;
    }
    streamed += decoder.finish();
    FUZZ_CHECK(streamed == tokenizer.decode(ids, true));
  }
}

// Of the shipped vocabulary every text comes back as it was, but for U+2581, which stands for a
// space.
void check_same_text(const Tokenizer& tokenizer, std::string text) {
  const std::string back = tokenizer.decode(tokenizer.encode(text, false, false), true);
  const std::string block = "\xE2\x96\x81";
  for (size_t at; (at = text.find(block)) != std::string::npos;)
    text.replace(at, block.size(), " ");
  FUZZ_CHECK(back == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Data data(bytes, size);
  if (data.ConsumeBool()) {
    const Tokenizer& tokenizer = shipped_tokenizer();
    const std::string text = any_text(data, 300, kWords);
    check_round_trip(tokenizer, text);
    check_same_text(tokenizer, text);
    const std::string any = data.ConsumeRemainingBytesAsString();
    const bool valid = find_invalid_utf8(any) == std::string::npos;
    FUZZ_CHECK(refused([&] { tokenizer.encode(any, true, true); }, {ErrorKind::kArgument}) !=
               valid);
    return 0;
  }
  const MemoryFile file(with_edited_vocabulary(data));
  refused(
      [&] {
        const Tokenizer tokenizer(*GgufFile::open(file.path()));
        check_round_trip(tokenizer, any_text(data, 300, kWords));
      },
      {ErrorKind::kFile, ErrorKind::kModel});
  return 0;
}
