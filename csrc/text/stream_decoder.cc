#include "text/tokenizer.h"
#include "text/utf8.h"

namespace gemtp {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool special)
    : tokenizer_(tokenizer), special_(special) {}

std::string StreamDecoder::push(int32_t id) {
  pending_ += tokenizer_.token_bytes(id, special_);
  std::string out;
  drain_utf8(&pending_, &out, false);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  drain_utf8(&pending_, &out, true);
  return out;
}

}  // namespace gemtp
