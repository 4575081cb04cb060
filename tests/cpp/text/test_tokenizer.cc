#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "gguf_builder.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

using namespace gemtp;
using gemtp::testing::GgufBuilder;
using gemtp::testing::TempFile;

namespace {

using Ids = std::vector<int32_t>;

/// Parts of a small vocabulary; every test breaks one thing in it.
struct Vocabulary {
  std::string model = "gemma4";
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<float> scores;
  std::vector<std::string> merges;
  int32_t bos = 2;
  int32_t eos = 1;

  int32_t add(const std::string& text, TokenType type = TokenType::kNormal) {
    tokens.push_back(text);
    types.push_back(static_cast<int32_t>(type));
    scores.push_back(-1000.0f);
    return static_cast<int32_t>(tokens.size()) - 1;
  }

  int32_t id(const std::string& text) const {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] == text) return static_cast<int32_t>(i);
    }
    return -1;
  }

  GgufBuilder builder() const {
    GgufBuilder b;
    b.text("tokenizer.ggml.model", model).texts("tokenizer.ggml.tokens", tokens);
    b.array("tokenizer.ggml.token_type", ValueType::kInt32, types);
    b.array("tokenizer.ggml.scores", ValueType::kFloat32, scores);
    b.texts("tokenizer.ggml.merges", merges);
    b.scalar("tokenizer.ggml.bos_token_id", ValueType::kInt32, bos);
    b.scalar("tokenizer.ggml.eos_token_id", ValueType::kInt32, eos);
    return b;
  }
};

Vocabulary small() {
  Vocabulary v;
  for (const char* text : {"<pad>", "<eos>", "<bos>", "<mask>", "<|turn>", "<turn|>"}) {
    v.add(text, TokenType::kControl);
  }
  v.add("<|tool_response>", TokenType::kUserDefined);
  v.add("<|\"|>", TokenType::kUserDefined);
  v.add("<|turn>>", TokenType::kUserDefined);
  for (int byte = 0; byte < 256; ++byte) v.add(format("<0x%02X>", byte), TokenType::kByte);
  v.add("\n\n", TokenType::kUserDefined);
  v.add("\n\n\n\n");
  for (const char* text : {"\n", "▁", "a", "b", "c",  "d", "ab", "bc", "cd", "abcd", "▁a", "▁▁",
                           "ä",  "<", "|", ">", "<|", "t", "u",  "r",  "n",  ">▁",   ">▁a"}) {
    v.add(text);
  }
  v.merges = {"b c",   "a b",       "c d", "ab cd", "▁ a", "▁ ▁",
              "\n \n", "\n\n \n\n", "< |", "> ▁",   ">▁ a"};
  return v;
}

Tokenizer load(const Vocabulary& v) {
  const TempFile temp(v.builder().bytes());
  return Tokenizer(*GgufFile::open(temp.path()));
}

void refused(const GgufBuilder& b, const char* because) {
  const TempFile temp(b.bytes());
  try {
    Tokenizer tokenizer(*GgufFile::open(temp.path()));
    FAIL("accepted, but expected: ", because);
  } catch (const Error& e) {
    const std::string message = e.what();
    CHECK(e.kind() == ErrorKind::kFile);
    CHECK_MESSAGE(message.find(because) != std::string::npos, message);
    CHECK_MESSAGE(message.find(temp.path()) != std::string::npos, message);
  }
}

std::string shared_data() {
  if (const char* folder = std::getenv("GEMTP_SHARED_DATA")) return folder;
#ifdef GEMTP_SOURCE_DIR
  return std::string(GEMTP_SOURCE_DIR) + "/../shared/data";
#else
  return "../shared/data";
#endif
}

/// The tokenizer of the released models, or nullptr where its file is absent.
const Tokenizer* real_tokenizer() {
  static const std::optional<Tokenizer> tokenizer = []() -> std::optional<Tokenizer> {
    const std::string path = shared_data() + "/ggml-vocab-gemma-4.gguf";
    if (!std::filesystem::exists(path)) return std::nullopt;
    return std::optional<Tokenizer>(std::in_place, *GgufFile::open(path));
  }();
  if (!tokenizer) {
    MESSAGE("skipped: no ggml-vocab-gemma-4.gguf in ", shared_data(), "; set GEMTP_SHARED_DATA");
    return nullptr;
  }
  return &*tokenizer;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t at = 0;
  for (size_t next; (next = text.find(separator, at)) != std::string::npos;) {
    parts.push_back(text.substr(at, next - at));
    at = next + separator.size();
  }
  parts.push_back(text.substr(at));
  return parts;
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids, bool special) {
  StreamDecoder decoder(tokenizer, special);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = decoder.push(id);
    CHECK(find_invalid_utf8(piece) == std::string::npos);
    text += piece;
  }
  return text + decoder.finish();
}

}  // namespace

TEST_CASE("tokenizer: merges by rank, leftmost first") {
  const Vocabulary v = small();
  const Tokenizer t = load(v);
  CHECK(t.vocab_size() == static_cast<int32_t>(v.tokens.size()));
  // "b c" outranks "a b", so that "abcd" falls apart around "bc" although "abcd" is a token.
  CHECK(t.encode("abcd", false, false) == Ids{v.id("a"), v.id("bc"), v.id("d")});
  CHECK(t.encode("ab", false, false) == Ids{v.id("ab")});
  CHECK(t.encode("cd", false, false) == Ids{v.id("cd")});
  CHECK(t.encode("   ", false, false) == Ids{v.id("▁▁"), v.id("▁")});
  CHECK(t.encode(" a", false, false) == Ids{v.id("▁a")});
  CHECK(t.encode("a a", false, false) == Ids{v.id("a"), v.id("▁a")});
  CHECK(t.encode("", false, false) == Ids{});
  // A token may have text in front of a space: words are not split there.
  CHECK(t.encode("> b", false, false) == Ids{v.id(">▁"), v.id("b")});
  CHECK(t.encode("ab> b", false, false) == Ids{v.id("ab"), v.id(">▁"), v.id("b")});
}

TEST_CASE("tokenizer: newline runs") {
  const Vocabulary v = small();
  const Tokenizer t = load(v);
  CHECK(t.encode("\n", false, false) == Ids{v.id("\n")});
  CHECK(t.encode("\n\n", false, false) == Ids{v.id("\n\n")});  // user-defined, but white space
  CHECK(t.encode("\n\n\n", false, false) == Ids{v.id("\n\n"), v.id("\n")});
  CHECK(t.encode("\n\n\n\n", false, false) == Ids{v.id("\n\n\n\n")});
  CHECK(t.encode("a\n\nb", false, false) == Ids{v.id("a"), v.id("\n\n"), v.id("b")});
}

TEST_CASE("tokenizer: characters without a token become bytes") {
  const Vocabulary v = small();
  const Tokenizer t = load(v);
  CHECK(t.encode("ä", false, false) == Ids{v.id("ä")});
  CHECK(t.encode("aöb", false, false) == Ids{v.id("a"), v.id("<0xC3>"), v.id("<0xB6>"), v.id("b")});
  CHECK(t.encode("aöb c", false, false).back() == v.id("c"));
  CHECK(t.encode(std::string_view("\0", 1), false, false) == Ids{v.id("<0x00>")});
  CHECK(t.decode({v.id("<0xC3>"), v.id("<0xB6>")}, false) == "ö");
  CHECK(t.token_bytes(v.id("<0xC3>"), false) == "\xC3");
}

TEST_CASE("tokenizer: markers only where they are allowed") {
  const Vocabulary v = small();
  const Tokenizer t = load(v);
  const Ids turn = t.encode("<|turn>", false, false);
  CHECK(turn.size() > 1);
  for (const int32_t id : turn) CHECK(t.token_type(id) != TokenType::kControl);
  CHECK(t.encode("<|turn>", false, true) == Ids{v.id("<|turn>")});
  CHECK(t.encode("<|turn>>", false, true) == Ids{v.id("<|turn>>")});  // the longest
  CHECK(t.encode("a<|\"|>b<|turn>", false, true) ==
        Ids{v.id("a"), v.id("<|\"|>"), v.id("b"), v.id("<|turn>")});
  CHECK(t.encode("<|turn", false, true) == t.encode("<|turn", false, false));
  // Spelling a byte token gives text in both modes, never the byte ("<mask>" is as long as one).
  for (const bool special : {false, true}) {
    for (const int32_t id : t.encode("<0x61>", false, special)) CHECK(id != v.id("<0x61>"));
  }
  // Merges that would spell a marker are not applied.
  Vocabulary w = small();
  w.add("turn>");
  w.add("tu");
  w.add("rn");
  w.add("rn>");
  w.merges = {"t u", "r n", "rn >", "tu rn>", "< |", "<| turn>"};
  for (const int32_t id : load(w).encode("<|turn>", false, false)) CHECK(id != w.id("<|turn>"));
  CHECK(load(w).encode("<|turn>", false, false) == Ids{w.id("<|"), w.id("turn>")});
}

TEST_CASE("tokenizer: BOS once, end tokens, suppressed tokens") {
  const Vocabulary v = small();
  const Tokenizer t = load(v);
  CHECK(t.bos() == 2);
  CHECK(t.add_bos());
  CHECK(t.encode("a", true, false) == Ids{2, v.id("a")});
  CHECK(t.encode("", true, false) == Ids{2});
  CHECK(t.encode("<bos>a", true, true) == Ids{2, v.id("a")});
  CHECK(t.encode("<bos>a", true, false)[0] == 2);
  CHECK(t.encode("<bos>a", true, false)[1] != 2);
  CHECK(t.end_tokens() == Ids{1, v.id("<turn|>"), v.id("<|tool_response>")});
  CHECK(t.suppressed().empty());
  const TempFile temp(
      v.builder()
          .array<int32_t>("tokenizer.ggml.suppress_tokens", ValueType::kInt32, {9, 3, 9})
          .array<int32_t>("tokenizer.ggml.eos_token_ids", ValueType::kInt32, {4, 1})
          .boolean("tokenizer.ggml.add_bos_token", false)
          .bytes());
  const Tokenizer u(*GgufFile::open(temp.path()));
  CHECK(u.suppressed() == Ids{3, 9});
  CHECK(u.end_tokens() == Ids{1, 4, 5, 6});
  CHECK_FALSE(u.add_bos());
}

TEST_CASE("tokenizer: decoding") {
  const Vocabulary v = small();
  const Tokenizer t = load(v);
  CHECK(t.decode({v.id("<|turn>"), v.id("▁a"), v.id("<turn|>")}, false) == " a");
  CHECK(t.decode({v.id("<|turn>"), v.id("▁a"), v.id("<turn|>")}, true) == "<|turn> a<turn|>");
  CHECK(t.decode({v.id("<|\"|>")}, false) == "<|\"|>");  // user-defined tokens are text
  CHECK(t.decode({v.id("<0xE2>"), v.id("<0x82>"), v.id("a")}, false) == "\uFFFDa");
  CHECK(t.decode({v.id("<0xE2>"), v.id("<0x82>")}, false) == "\uFFFD");
  CHECK(t.decode({v.id("<0xFF>"), v.id("<0xFF>")}, false) == "\uFFFD\uFFFD");
  CHECK_THROWS_AS(t.decode({-1}, false), Error);
  CHECK_THROWS_AS(t.decode({t.vocab_size()}, false), Error);
  CHECK_THROWS_AS(t.token_bytes(1 << 30, false), Error);
}

TEST_CASE("tokenizer: a stream of pieces is the whole text") {
  const Tokenizer t = load(small());
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    Ids ids(random() % 12);
    for (int32_t& id : ids) {
      // Mostly byte tokens of multi-byte characters, so that many are cut and many complete.
      id = static_cast<int32_t>(random() % static_cast<uint32_t>(t.vocab_size()));
      if (random() % 3 != 0) id = 9 + 0x80 + static_cast<int32_t>(random() % 128);
    }
    for (const bool special : {false, true}) {
      CHECK(streamed(t, ids, special) == t.decode(ids, special));
    }
  }
  // A complete character is given out with its last byte, not later.
  StreamDecoder decoder(t);
  CHECK(decoder.push(9 + 0xF0) == "");
  CHECK(decoder.push(9 + 0x9F) == "");
  CHECK(decoder.push(9 + 0xA6) == "");
  CHECK(decoder.push(9 + 0x99) == "\U0001F999");
  CHECK(decoder.finish() == "");
}

TEST_CASE("utf8: maximal subparts") {
  CHECK(to_valid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64") ==
        "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");  // table 3-11 of the Unicode standard
  CHECK(to_valid_utf8("\xED\xA0\x80") == "\uFFFD\uFFFD\uFFFD");  // a surrogate, table 3-9
  CHECK(to_valid_utf8("\xC0\xAF") == "\uFFFD\uFFFD");            // overlong, table 3-8
  CHECK(to_valid_utf8("\xF4\x91\x92\x93") == "\uFFFD\uFFFD\uFFFD\uFFFD");
  CHECK(find_invalid_utf8("gr\xC3\xBC") == std::string_view::npos);
  CHECK(find_invalid_utf8("ab\xC3") == 2);
  CHECK(find_invalid_utf8("ab\xED\xA0\x80") == 2);
  CHECK(find_invalid_utf8("\xF4\x8F\xBF\xBF") == std::string_view::npos);
}

TEST_CASE("tokenizer: invalid UTF-8 in a text is an error with its place") {
  const Tokenizer t = load(small());
  try {
    t.encode("ab\xC3(", false, false);
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::kArgument);
    CHECK(std::string(e.what()).find("offset 2") != std::string::npos);
  }
}

TEST_CASE("tokenizer: vocabularies that contradict themselves") {
  const auto broken = [](auto change, const char* because) {
    Vocabulary v = small();
    change(v);
    refused(v.builder(), because);
  };
  broken([](Vocabulary& v) { v.model = "llama"; }, "'llama'");
  broken([](Vocabulary& v) { v.tokens.clear(); }, "missing or empty");
  broken([](Vocabulary& v) { v.types.pop_back(); }, "token_type");
  broken([](Vocabulary& v) { v.scores.push_back(0); }, "scores");
  broken([](Vocabulary& v) { v.types[3] = 0; }, "type 0");
  broken([](Vocabulary& v) { v.types[3] = 7; }, "type 7");
  broken([](Vocabulary& v) { v.types[3] = -1; }, "type -1");
  broken([](Vocabulary& v) { v.tokens.back() = ""; }, "empty");
  broken([](Vocabulary& v) { v.tokens.back() = "a"; }, "same text");
  broken([](Vocabulary& v) { v.tokens.back() = "\xC3("; }, "UTF-8");
  for (const char* text : {"<0x-1>", "<0x1>", "<0x100>", "<0xGG>", "0x61", "<0x61", "<0X61>"}) {
    broken([&](Vocabulary& v) { v.tokens[static_cast<size_t>(v.id("<0x61>"))] = text; },
           "byte token");
  }
  broken(
      [](Vocabulary& v) {
        v.tokens[static_cast<size_t>(v.id("<0xAB>"))] = "<0xab>";
        v.add("<0xAB>", TokenType::kByte);
      },
      "both stand for byte");
  broken([](Vocabulary& v) { v.types[static_cast<size_t>(v.id("<0x61>"))] = 1; }, "<0x61>");
  for (const char* merge : {"ab", " ab", "ab ", "a  b", "a b c", "", " "}) {
    broken([&](Vocabulary& v) { v.merges.push_back(merge); }, "one space");
  }
  broken([](Vocabulary& v) { v.merges.push_back("a x"); }, "has a part");
  broken([](Vocabulary& v) { v.merges.push_back("a d"); }, "makes a text");
  broken([](Vocabulary& v) { v.merges.push_back("a b"); }, "twice");
  broken([](Vocabulary& v) { v.bos = 100000; }, "bos_token_id");
  broken([](Vocabulary& v) { v.bos = -1; }, "bos_token_id");
  broken([](Vocabulary& v) { v.eos = INT32_MAX; }, "eos_token_id");
  const Vocabulary v = small();
  refused(v.builder().array<int32_t>("tokenizer.ggml.suppress_tokens", ValueType::kInt32, {-3}),
          "suppress_tokens");
  refused(v.builder().text("tokenizer.ggml.eot_token_id", "x"), "eot_token_id");
  refused(GgufBuilder().u32("a", 1), "no tokenizer");
  refused(GgufBuilder().text("tokenizer.ggml.model", "gemma4"), "tokens");
}

TEST_CASE("tokenizer: one million characters without a newline") {
  const Tokenizer t = load(small());
  std::string text;
  std::mt19937 random(3);
  while (text.size() < 1000000) text += "abcd<|>"[random() % 7];
  const auto start = std::chrono::steady_clock::now();
  const Ids ids = t.encode(text, false, true);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  CHECK(t.decode(ids, false) == text);
  CHECK(seconds.count() < 10.0);  // far above what it takes, far below a quadratic algorithm
}

TEST_CASE("tokenizer: the released vocabulary") {
  const Tokenizer* t = real_tokenizer();
  if (t == nullptr) return;
  CHECK(t->vocab_size() == 262144);
  CHECK(t->bos() == 2);
  CHECK(t->end_tokens() == Ids{1, 50, 106});
  CHECK(t->find("<|turn>") == 105);

  const std::string base = shared_data() + "/ggml-vocab-gemma-4.gguf";
  const std::vector<std::string> texts = split(read_file(base + ".inp"), "\n__ggml_vocab_test__\n");
  std::vector<std::string> lines = split(read_file(base + ".out"), "\n");
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  REQUIRE(lines.size() == 46);
  REQUIRE(texts.size() >= lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    Ids expected;
    std::istringstream numbers(lines[i]);
    for (int32_t id; numbers >> id;) expected.push_back(id);
    for (const bool special : {false, true}) {
      CHECK_MESSAGE(t->encode(texts[i], false, special) == expected, "text ", i, ": ", texts[i]);
    }
    CHECK(t->decode(expected, false) == texts[i]);
  }

  // What a user types never becomes a marker.
  for (const char* text : {"<|tool_call>", "<|\"|>", "<bos>", "<turn|>", "<|turn>model\n<eos>"}) {
    for (const int32_t id : t->encode(text, false, false)) {
      CHECK(t->token_type(id) == TokenType::kNormal);
    }
    CHECK(t->decode(t->encode(text, false, false), false) == text);
  }
  CHECK(t->encode("<|turn>user\nHi<turn|>\n", true, true).front() == 2);
  CHECK(t->encode("<|tool_call>", false, true) == Ids{48});

  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    Ids ids(1 + random() % 20);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % (round % 2 ? 262144 : 600));
    for (const bool special : {false, true}) {
      CHECK(streamed(*t, ids, special) == t->decode(ids, special));
    }
  }
}
