// GGUF v2/v3 reader. Everything in the file is treated as hostile: counts,
// lengths, offsets and products are checked before use, nothing is allocated on the word of a
// count alone, and every failure is an Error{kFile} naming the file and the key or tensor.
//
// A model may come in several files, the parts of a set: name-00001-of-00003.gguf and so on, the
// first with all metadata, each with tensors of its own and split.no, split.count and
// split.tensors.count. Opening any of them opens all, and they look like one file.
//
// Opening keeps what is in the file and where; values and tensors are read when they are asked for.
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
  /// bytes: u64 length + bytes each. Error{kFile} from `fail` when they are not `count` of them.
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
  uint64_t offset = 0;         // in the file that it lies in
  uint64_t bytes = 0;
  size_t part = 0;  // of GgufFile::parts(), where it lies

  int64_t elements() const;
};

/// "[256, 1024]"
std::string shape_text(const std::vector<int64_t>& shape);

class GgufFile {
 public:
  /// Opens and validates `path`, and the other parts if it is one of a set.
  static std::shared_ptr<const GgufFile> open(const std::string& path);

  /// Of the file, or of the first part.
  const std::string& path() const { return parts_[0]; }
  /// Paths of the files that the model lies in, in their order.
  const std::vector<std::string>& parts() const { return parts_; }
  /// The path as error sentences show it; with a tensor, that of the part it lies in.
  std::string quoted_path() const;
  std::string quoted_path(const Tensor& tensor) const;
  uint32_t version() const { return version_; }
  uint64_t size() const;  // of all parts

  /// As InputFile's, of all parts.
  void check_unchanged() const;
  void expect_random() const;

  // Metadata. Keys in file order.
  const std::vector<std::string>& keys() const { return key_order_; }
  const Value* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  // Typed access: nullopt when the key is absent; Error{kFile} naming the key when it has another
  // type (any integer type is accepted for integers, if the value fits) or cannot be read.
  std::optional<uint64_t> get_uint(std::string_view key) const;
  std::optional<int64_t> get_int(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;  // f32 or f64, finite or not
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string> get_string(std::string_view key) const;  // valid UTF-8, else Error
  std::optional<std::vector<int64_t>> get_ints(std::string_view key) const;  // int or bool array
  std::optional<std::vector<float>> get_floats(std::string_view key) const;  // f32 array
  std::optional<Strings> get_strings(std::string_view key) const;            // raw bytes

  // Tensors, in file order.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor* find_tensor(std::string_view name) const;
  const InputFile& metadata_file() const { return *files_[0]; }
  const InputFile& file_of(const Tensor& tensor) const { return *files_[tensor.part]; }
  /// The first `bytes` bytes of a tensor, or all. Error{kFile} as InputFile::read().
  std::vector<uint8_t> bytes_of(const Tensor& tensor, uint64_t bytes = UINT64_MAX) const;

 private:
  GgufFile() = default;
  friend class GgufParser;
  friend class GgufSet;
  static std::shared_ptr<GgufFile> open_one(const std::string& path);
  std::vector<uint8_t> bytes_of(const Value& value) const;

  std::vector<std::string> parts_;
  std::vector<std::unique_ptr<InputFile>> files_;  // of parts_
  uint32_t version_ = 0;
  std::vector<std::string> key_order_;
  std::unordered_map<std::string, Value> values_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, size_t> tensor_index_;
};

}  // namespace gemtp
