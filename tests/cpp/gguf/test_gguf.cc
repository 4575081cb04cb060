#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "gguf/reader.h"
#include "gguf_builder.h"

using namespace gemtp;
using gemtp::testing::GgufBuilder;
using gemtp::testing::put;
using gemtp::testing::put_string;
using gemtp::testing::TempFile;

namespace {

std::string zeros(size_t n) { return std::string(n, '\0'); }

/// A sound file with one key of every kind and three tensors; every test breaks one thing in it.
GgufBuilder sample() {
  GgufBuilder b;
  b.text("general.architecture", "gemma4").u32("count", 7);
  b.scalar("negative", ValueType::kInt32, int32_t{-5});
  b.scalar("big", ValueType::kUint64, UINT64_MAX);
  b.scalar("rate", ValueType::kFloat32, 0.5f).scalar("exact", ValueType::kFloat64, 0.1);
  b.boolean("flag", true).texts("words", {"a", "", "bc"});
  b.array<int32_t>("ints", ValueType::kInt32, {1, -2, 3});
  b.array<uint8_t>("bools", ValueType::kBool, {1, 0});
  b.array<float>("floats", ValueType::kFloat32, {1.5f, 2.5f});
  b.tensor({"first", {3, 2}, 0, std::string("\0\0\x80\x3f", 4) + zeros(20)});
  b.tensor({"second", {64, 2}, 8, zeros(4 * 34)});
  b.tensor({"third", {32, 1, 2, 1}, 2, zeros(2 * 18)});
  return b;
}

std::shared_ptr<const GgufFile> open_bytes(const std::string& bytes) {
  const TempFile file(bytes);
  return GgufFile::open(file.path());
}

/// The message that opening `bytes` gives, or "" when it opens.
std::string message_of(const std::string& bytes) {
  const TempFile file(bytes);
  try {
    GgufFile::open(file.path());
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::kFile);
    const std::string message = e.what();
    CHECK(message.find(file.path()) != std::string::npos);
    return message;
  }
  return "";
}

bool refused(const std::string& bytes, const char* because) {
  const std::string message = message_of(bytes);
  INFO("message: ", message);
  const bool found = message.find(because) != std::string::npos;
  CHECK_MESSAGE(found, "expected '", because, "' in: ", message);
  return found;
}

}  // namespace

TEST_CASE("gguf: values and tensors come back as written") {
  for (const uint32_t version : {2u, 3u}) {
    GgufBuilder b = sample();
    b.version = version;
    const TempFile temp(b.bytes());
    const auto file = GgufFile::open(temp.path());
    CHECK(file->version() == version);
    CHECK(file->size() == b.bytes().size());
    CHECK(file->keys().size() == 11);
    CHECK(file->keys()[1] == "count");
    CHECK(file->get_string("general.architecture") == "gemma4");
    CHECK(file->get_uint("count") == 7);
    CHECK(file->get_int("negative") == -5);
    CHECK(file->get_uint("big") == UINT64_MAX);
    CHECK(file->get_float("rate") == 0.5);
    CHECK(file->get_float("exact") == 0.1);
    CHECK(file->get_bool("flag") == true);
    const Strings words = *file->get_strings("words");
    CHECK(std::vector<std::string_view>(words.begin(), words.end()) ==
          std::vector<std::string_view>{"a", "", "bc"});
    CHECK(*file->get_ints("ints") == std::vector<int64_t>{1, -2, 3});
    CHECK(*file->get_ints("bools") == std::vector<int64_t>{1, 0});
    CHECK(*file->get_floats("floats") == std::vector<float>{1.5f, 2.5f});
    CHECK_FALSE(file->has("absent"));
    CHECK_FALSE(file->get_uint("absent").has_value());
    CHECK_FALSE(file->get_strings("absent").has_value());

    REQUIRE(file->tensors().size() == 3);
    CHECK(file->tensors()[0].name == "first");
    const Tensor* second = file->find_tensor("second");
    REQUIRE(second != nullptr);
    CHECK(second->shape == std::vector<int64_t>{64, 2});
    CHECK(second->bytes == 4 * 34);
    CHECK(second->elements() == 128);
    float one;
    std::memcpy(&one, file->bytes_of(file->tensors()[0], 4).data(), 4);
    CHECK(one == 1.0f);
    CHECK(second->offset - file->tensors()[0].offset == 32);
    CHECK(file->find_tensor("absent") == nullptr);
  }
}

TEST_CASE("gguf: typed access refuses other types by name") {
  const TempFile temp(sample().bytes());
  const auto file = GgufFile::open(temp.path());
  const auto says = [&](const char* key, const std::function<void()>& access) {
    try {
      access();
      FAIL("no error for ", key);
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::kFile);
      CHECK(std::string(e.what()).find(key) != std::string::npos);
      CHECK(std::string(e.what()).find(temp.path()) != std::string::npos);
    }
  };
  says("flag", [&] { file->get_uint("flag"); });
  says("negative", [&] { file->get_uint("negative"); });
  says("big", [&] { file->get_int("big"); });
  says("words", [&] { file->get_int("words"); });
  says("count", [&] { file->get_float("count"); });
  says("count", [&] { file->get_bool("count"); });
  says("ints", [&] { file->get_string("ints"); });
  says("floats", [&] { file->get_ints("floats"); });
  says("words", [&] { file->get_ints("words"); });
  says("count", [&] { file->get_ints("count"); });
  says("ints", [&] { file->get_floats("ints"); });
  says("ints", [&] { file->get_strings("ints"); });

  const auto odd = open_bytes(GgufBuilder()
                                  .text("bad", "\xC3(")
                                  .scalar("two", ValueType::kBool, uint8_t{2})
                                  .array<uint64_t>("wide", ValueType::kUint64, {1ull << 63})
                                  .bytes());
  CHECK_THROWS_AS(odd->get_string("bad"), Error);
  CHECK_THROWS_AS(odd->get_bool("two"), Error);
  CHECK_THROWS_AS(odd->get_ints("wide"), Error);
}

TEST_CASE("gguf: files that are not regular, present or long enough") {
  CHECK_THROWS_AS(GgufFile::open("/nonexistent/x.gguf"), Error);
  CHECK_THROWS_AS(GgufFile::open(std::filesystem::temp_directory_path().string()), Error);
  CHECK_THROWS_AS(GgufFile::open(""), Error);
  CHECK_THROWS_AS(GgufFile::open(std::string("a\0b", 3)), Error);
  refused("", "empty file");
}

TEST_CASE("gguf: every truncation is an error") {
  const std::string good = sample().bytes(/*pad_last=*/false);
  REQUIRE(message_of(good) == "");
  for (size_t length = 0; length < good.size(); ++length) {
    CHECK_MESSAGE(message_of(good.substr(0, length)) != "", "opened at length ", length);
  }
}

TEST_CASE("gguf: no flipped byte takes the reader down") {
  const std::string good = sample().bytes();
  for (size_t at = 0; at < good.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      message_of(bad);  // opens or throws Error; anything else fails the test
    }
  }
}

TEST_CASE("gguf: header") {
  GgufBuilder b = sample();
  b.magic = "GGML";
  refused(b.bytes(), "not a GGUF file");
  const auto with_version = [](uint32_t version) {
    GgufBuilder v = sample();
    v.version = version;
    return v.bytes();
  };
  refused(with_version(0), "version 0");
  refused(with_version(1), "version 1");
  refused(with_version(4), "version 4");
  refused(with_version(0x03000000), "byte-swapped");
  refused(with_version(0x02000000), "byte-swapped");
  for (const int64_t count : {INT64_MAX, int64_t{1} << 62, int64_t{1000000}}) {
    GgufBuilder tensors = sample();
    tensors.claimed_tensors = count;
    refused(tensors.bytes(), "header claims");
    GgufBuilder keys = sample();
    keys.claimed_keys = count;
    refused(keys.bytes(), "header claims");
  }
  // Counts with the top bit set, written over the fields themselves.
  for (const size_t field : {size_t{8}, size_t{16}}) {
    std::string bytes = sample().bytes();
    bytes.replace(field, 8, std::string(8, '\xFF'));
    refused(bytes, "header claims");
  }
}

TEST_CASE("gguf: metadata") {
  const auto with_key = [](std::string_view key) { return sample().u32(key, 1).bytes(); };
  refused(with_key(""), "empty");
  refused(with_key("count"), "twice");
  refused(with_key("\xFF\xFE"), "UTF-8");
  refused(with_key(std::string(70000, 'k')), "70000 bytes");
  CHECK(message_of(with_key(std::string(65535, 'k'))) == "");
  refused(sample().raw("odd", 13, zeros(8)).bytes(), "type 13");
  refused(sample().raw("odd", 0xFFFFFFFFu, zeros(8)).bytes(), "type 4294967295");

  const auto array = [](uint32_t element, uint64_t count, const std::string& data) {
    std::string value;
    put<uint32_t>(&value, element);
    put<uint64_t>(&value, count);
    return sample().raw("odd", 9, value + data).bytes();
  };
  refused(array(9, 1, zeros(32)), "array of arrays");
  refused(array(99, 1, zeros(32)), "type 99");
  refused(array(4, uint64_t{1} << 62, zeros(32)), "claims");
  refused(array(8, uint64_t{1} << 61, zeros(32)), "claims");
  refused(array(0, UINT64_MAX, zeros(32)), "claims");
  std::string huge;
  put<uint64_t>(&huge, UINT64_MAX - 4);
  refused(sample().raw("odd", 8, huge).bytes(), "ends inside");
  refused(array(8, 2, huge + zeros(8)), "ends inside");

  for (const uint32_t bad : {0u, 1u, 4u, 24u, 33u, 1u << 31}) {
    refused(sample().u32("general.alignment", bad).bytes(), "general.alignment");
  }
  refused(sample().text("general.alignment", "32").bytes(), "general.alignment");
  GgufBuilder wide = sample();
  wide.alignment = 128;
  CHECK(message_of(wide.u32("general.alignment", 128).bytes()) == "");
}

TEST_CASE("gguf: tensors") {
  using Entry = GgufBuilder::TensorEntry;
  const auto with = [](Entry entry) { return sample().tensor(std::move(entry)).bytes(); };
  refused(with({"t", {}, 0, ""}), "0 dimensions");
  refused(with({"t", {1, 1, 1, 1, 1}, 0, zeros(4)}), "5 dimensions");
  refused(with({"t", {4, 0}, 0, ""}), "zero");
  refused(with({"t", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, zeros(4)}), "63 bits");
  refused(with({"t", {uint64_t{1} << 63}, 0, zeros(4)}), "63 bits");
  refused(with({"t", {uint64_t{1} << 62}, 0, zeros(4)}), "63 bits");
  refused(with({"t", {UINT64_MAX}, 24, zeros(4)}), "63 bits");
  refused(with({"t", {uint64_t{INT64_MAX}}, 24, zeros(4)}), "beyond the end");
  refused(with({"t", {33}, 8, zeros(34)}), "blocks of 32");
  refused(with({"t", {16, 2}, 2, zeros(18)}), "blocks of 32");
  refused(with({"t", {4}, 4, zeros(16)}), "'t' has type 4");
  refused(with({"t", {4}, 4711, zeros(16)}), "'t' has type 4711");
  refused(with({"first", {4}, 0, zeros(16)}), "twice");
  refused(with({"", {4}, 0, zeros(16)}), "empty name");
  refused(with({std::string(65, 'n'), {4}, 0, zeros(16)}), "65 bytes");
  CHECK(message_of(with({std::string(64, 'n'), {4}, 0, zeros(16)})) == "");
  refused(with({"\xC0\x80", {4}, 0, zeros(16)}), "UTF-8");
  // The three tensors before take 32 + 160 + 64 bytes.
  CHECK(message_of(with({"t", {4}, 0, zeros(16), 256})) == "");
  refused(with({"t", {4}, 0, zeros(16), 192}), "overlaps");
  refused(with({"t", {4}, 0, zeros(16), 0}), "overlaps");
  refused(with({"t", {4}, 0, zeros(64), 288}), "gap");
  refused(with({"t", {4}, 0, zeros(16), 257}), "multiple of the alignment");
  refused(with({"t", {4}, 0, zeros(16), int64_t{1} << 40}), "beyond the end");
  refused(with({"t", {4}, 0, zeros(16), INT64_MAX - 31}), "beyond the end");
  refused(with({"t", {64}, 0, zeros(64)}), "beyond the end");
}

TEST_CASE("gguf: only the padding behind the last tensor may be missing or longer") {
  CHECK(message_of(sample().bytes(false)) == "");
  CHECK(message_of(sample().bytes(true)) == "");
  refused(sample().bytes(false).substr(0, sample().bytes(false).size() - 1), "beyond the end");
}

TEST_CASE("gguf: types without kernels are listed with their geometry") {
  const TempFile temp(GgufBuilder().tensor({"k", {256, 3}, 34, zeros(3 * 54)}).bytes());
  const auto file = GgufFile::open(temp.path());
  const Tensor* tensor = file->find_tensor("k");
  REQUIRE(tensor != nullptr);
  CHECK(tensor->bytes == 3 * 54);
  CHECK(std::string(dtype_info(tensor->type)->name) == "TQ1_0");
  CHECK_FALSE(dtype_supported(tensor->type));
  for (const uint32_t type : {0u, 1u, 2u, 8u, 12u, 30u, 39u}) CHECK(dtype_supported(type));
  CHECK(dtype_info(4) == nullptr);
  CHECK(dtype_info(42) == nullptr);
  CHECK(dtype_info(UINT32_MAX) == nullptr);
}

TEST_CASE("error: untrusted text is made safe for a sentence") {
  CHECK(quoted("blk.0.ffn") == "'blk.0.ffn'");
  CHECK(quoted("a\nb\x1b[31m") == "'a\\x0Ab\\x1B[31m'");
  CHECK(quoted("\xFFok\xC3") == "'\\xFFok\\xC3'");
  CHECK(quoted("\xE2\x80\xAE") == "'\\xE2\\x80\\xAE'");  // U+202E reorders a line
  CHECK(quoted("grün") == "'grün'");
  CHECK(quoted(std::string(100, 'x')) == "'" + std::string(60, 'x') + "…'");
}
