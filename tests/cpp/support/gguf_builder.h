// Writes small GGUF files for tests: valid ones and, through the raw hooks, invalid ones.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gguf/reader.h"

namespace gemtp::testing {

/// A file in the temporary folder that is removed with this object.
class TempFile {
 public:
  explicit TempFile(std::string_view bytes) {
    static std::atomic<int> counter{0};
    const auto base = std::filesystem::temp_directory_path();
    do {
      path_ = (base / ("gemtp-test-" + std::to_string(counter++) + "-" +
                       std::to_string(reinterpret_cast<uintptr_t>(this)) + ".gguf"))
                  .string();
    } while (std::filesystem::exists(path_));
    std::ofstream(path_, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  ~TempFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

template <typename T>
void put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

inline void put_string(std::string* out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out->append(text);
}

class GgufBuilder {
 public:
  // Values of the header; counts of -1 are replaced by the true ones.
  std::string magic = "GGUF";
  uint32_t version = 3;
  int64_t claimed_tensors = -1;
  int64_t claimed_keys = -1;
  uint64_t alignment = 32;  // used for padding; not written as a key automatically

  /// Adds a value given as its encoded bytes.
  GgufBuilder& raw(std::string_view key, uint32_t type, std::string_view value) {
    put_string(&metadata_, key);
    put<uint32_t>(&metadata_, type);
    metadata_.append(value);
    ++keys_;
    return *this;
  }
  template <typename T>
  GgufBuilder& scalar(std::string_view key, ValueType type, T value) {
    std::string bytes;
    put(&bytes, value);
    return raw(key, static_cast<uint32_t>(type), bytes);
  }
  GgufBuilder& u32(std::string_view key, uint32_t v) { return scalar(key, ValueType::kUint32, v); }
  GgufBuilder& boolean(std::string_view key, bool v) {
    return scalar(key, ValueType::kBool, static_cast<uint8_t>(v));
  }
  GgufBuilder& text(std::string_view key, std::string_view v) {
    std::string bytes;
    put_string(&bytes, v);
    return raw(key, static_cast<uint32_t>(ValueType::kString), bytes);
  }
  GgufBuilder& texts(std::string_view key, const std::vector<std::string>& values) {
    std::string bytes = array_head(ValueType::kString, values.size());
    for (const std::string& v : values) put_string(&bytes, v);
    return raw(key, static_cast<uint32_t>(ValueType::kArray), bytes);
  }
  template <typename T>
  GgufBuilder& array(std::string_view key, ValueType element, const std::vector<T>& values) {
    std::string bytes = array_head(element, values.size());
    for (const T v : values) put(&bytes, v);
    return raw(key, static_cast<uint32_t>(ValueType::kArray), bytes);
  }

  struct TensorEntry {
    std::string name;
    std::vector<uint64_t> shape;  // file order
    uint32_t type = 0;
    std::string data;
    int64_t offset = -1;  // -1: the right one
  };
  GgufBuilder& tensor(TensorEntry entry) {
    tensors_.push_back(std::move(entry));
    return *this;
  }

  std::string bytes(bool pad_last = true) const {
    std::string out = magic;
    put<uint32_t>(&out, version);
    put<int64_t>(&out,
                 claimed_tensors < 0 ? static_cast<int64_t>(tensors_.size()) : claimed_tensors);
    put<int64_t>(&out, claimed_keys < 0 ? keys_ : claimed_keys);
    out += metadata_;
    std::string data;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const TensorEntry& t = tensors_[i];
      put_string(&out, t.name);
      put<uint32_t>(&out, static_cast<uint32_t>(t.shape.size()));
      for (const uint64_t dim : t.shape) put<uint64_t>(&out, dim);
      put<uint32_t>(&out, t.type);
      put<int64_t>(&out, t.offset < 0 ? static_cast<int64_t>(data.size()) : t.offset);
      data += t.data;
      if (pad_last || i + 1 < tensors_.size()) pad(&data);
    }
    if (tensors_.empty()) return out;
    pad(&out);
    return out + data;
  }

 private:
  static std::string array_head(ValueType element, uint64_t count) {
    std::string bytes;
    put<uint32_t>(&bytes, static_cast<uint32_t>(element));
    put<uint64_t>(&bytes, count);
    return bytes;
  }
  void pad(std::string* bytes) const {
    while (bytes->size() % alignment != 0) bytes->push_back('\0');
  }

  std::string metadata_;
  int64_t keys_ = 0;
  std::vector<TensorEntry> tensors_;
};

}  // namespace gemtp::testing
