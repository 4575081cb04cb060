// GGUF v2/v3 reader. Everything in the file is treated as hostile: counts, lengths, offsets and
// products are checked before use, nothing is allocated on the strength of a count alone, and every
// failure is an Error{kFile} that names the file and the key or tensor.
//
// A model may come in several files, the parts of a set: name-00001-of-00003.gguf and so on, the
// first with all metadata, each with its own tensors and split.no, split.count and
// split.tensors.count. Opening any part opens all of them, and they look like one file.
//
// Opening records which values and tensors exist and where they are; they are read on demand.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/input_file.h"
#include "gguf/types.h"

namespace gemtp {

enum class ValueType : uint32_t {
  kUint8 = 0,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

/// One metadata value, decoded on demand.
struct Value {
  ValueType type = ValueType::kUint8;
  ValueType element = ValueType::kUint8;  // for arrays
  uint64_t count = 1;                     // elements of an array, 1 for a scalar
  uint64_t offset = 0;                    // of the first element; strings: u64 length + bytes each
  uint64_t bytes = 0;
};

/// An array of strings, as raw bytes.
class Strings {
 public:
  /// bytes: u64 length + bytes for each string. Calls `fail`, which throws Error{kFile}, if they
  /// are not exactly `count` strings.
  Strings(std::vector<uint8_t> bytes, uint64_t count, const std::function<void()>& fail);
  Strings(Strings&&) = default;
  Strings& operator=(Strings&&) = default;

  size_t size() const { return views_.size(); }
  bool empty() const { return views_.empty(); }
  std::string_view operator[](size_t i) const { return views_[i]; }
  auto begin() const { return views_.begin(); }
  auto end() const { return views_.end(); }

 private:
  std::vector<uint8_t> bytes_;
  std::vector<std::string_view> views_;  // into bytes_
};

/// One tensor. `shape` in file order: shape[0] is the contiguous dimension (columns, K).
struct Tensor {
  std::string name;
  uint32_t type = 0;           // raw number; see dtype_supported()
  std::vector<int64_t> shape;  // 1 to 4 entries, all > 0
  uint64_t offset = 0;         // within the file of its part
  uint64_t bytes = 0;
  size_t part = 0;  // index of its file in GgufFile::parts()

  int64_t elements() const;
};

/// "[256, 1024]"
std::string shape_text(const std::vector<int64_t>& shape);

class GgufFile {
 public:
  /// Opens and validates `path`, and the other parts if it is one of a set.
  static std::shared_ptr<const GgufFile> open(const std::string& path);

  /// Path of the file, or of the first part.
  const std::string& path() const { return parts_[0]; }
  /// Paths of all files of the model, in order.
  const std::vector<std::string>& parts() const { return parts_; }
  /// The path as error sentences show it; given a tensor, the path of its part.
  std::string quoted_path() const;
  std::string quoted_path(const Tensor& tensor) const;
  uint32_t version() const { return version_; }
  uint64_t size() const;  // of all parts

  /// Call the InputFile functions of the same name for all parts.
  void check_unchanged() const;
  void expect_random() const;

  // Metadata, with keys in file order.
  const std::vector<std::string>& keys() const { return key_order_; }
  const Value* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  // Typed access returns nullopt if the key is absent. It throws Error{kFile}, naming the key, if
  // the value has another type or cannot be read. For integers any integer type is accepted if the
  // value fits.
  std::optional<uint64_t> get_uint(std::string_view key) const;
  std::optional<int64_t> get_int(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;  // f32 or f64, finite or not
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string> get_string(std::string_view key) const;  // throws unless valid UTF-8
  std::optional<std::vector<int64_t>> get_ints(std::string_view key) const;  // int or bool array
  std::optional<std::vector<float>> get_floats(std::string_view key) const;  // f32 array
  std::optional<Strings> get_strings(std::string_view key) const;            // raw bytes

  // Tensors, in file order.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor* find_tensor(std::string_view name) const;
  const InputFile& metadata_file() const { return *files_[0]; }
  const InputFile& file_of(const Tensor& tensor) const { return *files_[tensor.part]; }
  /// The first `bytes` bytes of a tensor, or all. Throws Error{kFile} like InputFile::read().
  std::vector<uint8_t> bytes_of(const Tensor& tensor, uint64_t bytes = UINT64_MAX) const;

 private:
  GgufFile() = default;
  friend class GgufParser;
  friend class GgufSet;
  static std::shared_ptr<GgufFile> open_one(const std::string& path);
  std::vector<uint8_t> bytes_of(const Value& value) const;

  std::vector<std::string> parts_;
  std::vector<std::unique_ptr<InputFile>> files_;  // one per entry of parts_
  uint32_t version_ = 0;
  std::vector<std::string> key_order_;
  std::unordered_map<std::string, Value> values_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, size_t> tensor_index_;
};

}  // namespace gemtp
