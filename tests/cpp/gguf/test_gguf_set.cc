// Tests models in several files, beyond what tests/files/test_parts.py can test from outside.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "gguf/reader.h"
#include "gguf_builder.h"

using namespace gemtp;
using gemtp::testing::GgufBuilder;
using gemtp::testing::TempFile;

namespace {

constexpr int kParts = 3;
constexpr size_t kFloats = 5000;  // of a tensor: some pages

/// m-0000N-of-00003.gguf in a folder of its own; part i holds tensor "ti", filled with i.
class Set {
 public:
  Set() : marker_("x"), folder_(marker_.path() + ".parts") {
    std::filesystem::create_directory(folder_);
    for (int i = 0; i < kParts; ++i) write(i, kParts, format("t%d", i));
  }
  ~Set() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  std::string path(int i) const {
    return (folder_ / ("m-0000" + std::to_string(i + 1) + "-of-00003.gguf")).string();
  }
  void write(int i, int tensors, const std::string& name) const {
    GgufBuilder b;
    if (i == 0) b.text("general.architecture", "gemma4");
    b.scalar("split.no", ValueType::kUint16, static_cast<uint16_t>(i));
    b.scalar("split.count", ValueType::kUint16, uint16_t{kParts});
    b.scalar("split.tensors.count", ValueType::kInt32, int32_t{tensors});
    const std::vector<float> values(kFloats, static_cast<float>(i));
    std::string data(kFloats * sizeof(float), '\0');
    std::memcpy(data.data(), values.data(), data.size());
    b.tensor({name, {kFloats}, 0, data});
    const std::string bytes = b.bytes();
    std::ofstream(path(i), std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

 private:
  TempFile marker_;
  std::filesystem::path folder_;
};

std::string message_of(const std::string& path) {
  try {
    GgufFile::open(path);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::kFile);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("any part of a set opens all of it") {
  const Set set;
  for (int given = 0; given < kParts; ++given) {
    const auto file = GgufFile::open(set.path(given));
    CHECK(file->path() == set.path(0));
    REQUIRE(file->parts().size() == kParts);
    REQUIRE(file->tensors().size() == kParts);
    CHECK(file->get_string("general.architecture") == "gemma4");
    uint64_t bytes = 0;
    for (int i = 0; i < kParts; ++i) {
      const Tensor* t = file->find_tensor(format("t%d", i));
      REQUIRE(t);
      CHECK(t->part == static_cast<size_t>(i));
      CHECK(file->quoted_path(*t).find(set.path(i)) != std::string::npos);
      float last;
      std::memcpy(&last, file->bytes_of(*t).data() + t->bytes - sizeof last, sizeof last);
      CHECK(last == static_cast<float>(i));
      bytes += std::filesystem::file_size(set.path(i));
    }
    CHECK(file->size() == bytes);
  }
}

TEST_CASE("advice about a set leaves its bytes as they are") {
  const Set set;
  const auto file = GgufFile::open(set.path(1));
  file->expect_random();
  for (const Tensor& t : file->tensors()) {
    file->file_of(t).prefetch(t.offset, t.bytes);
    float last;
    std::memcpy(&last, file->bytes_of(t).data() + t.bytes - sizeof last, sizeof last);
    CHECK(last == static_cast<float>(t.part));
  }
  file->check_unchanged();
}

TEST_CASE("a part of an open set that is cut short is named") {
  const Set set;
  const auto file = GgufFile::open(set.path(0));
  const Tensor& t = *file->find_tensor("t2");
#ifndef _WIN32  // there nobody can write to a file that is open for reading
  std::filesystem::resize_file(set.path(2), t.offset + 100);
  CHECK(file->bytes_of(t, 100).size() == 100);
  for (const std::function<void()>& act :
       {std::function<void()>([&] { file->bytes_of(t); }), {[&] { file->check_unchanged(); }}})
    try {
      act();
      FAIL("a file that is too short was read");
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::kFile);
      CHECK(std::string(e.what()).find("m-00003-of-00003.gguf' ") != std::string::npos);
      CHECK(std::string(e.what()).find("; put the whole file back and open it again") !=
            std::string::npos);
    }
#endif
  CHECK(file->bytes_of(*file->find_tensor("t1")).size() == kFloats * sizeof(float));
}

TEST_CASE("sets that are none name the part") {
  Set set;
  set.write(1, kParts, "t0");  // a tensor that another part has
  CHECK(message_of(set.path(2)).find("m-00002-of-00003.gguf': tensor 't0' is in ") !=
        std::string::npos);
  set.write(1, kParts + 1, "t1");
  CHECK(message_of(set.path(0)).find("the two parts are of different models") != std::string::npos);
  std::filesystem::remove(set.path(1));
  CHECK(message_of(set.path(0)).find("part 2 of the 3 that the model consists of") !=
        std::string::npos);
}
