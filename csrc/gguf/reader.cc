#include "gguf/reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace gemtp {

static_assert(std::endian::native == std::endian::little, "GGUF is read as it lies in memory");

namespace {

constexpr uint64_t kMaxKeyBytes = 65535;      // by the format
constexpr uint64_t kMaxTensorNameBytes = 64;  // by the format
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;
constexpr uint64_t kWindow = uint64_t{1} << 16;  // bytes of the header that are read at a time
// The fewest bytes that an entry can take, which bounds a count by the bytes that are left.
constexpr uint64_t kMinKeyValueBytes = 8 + 1 + 4 + 1;        // key length, key, type, value
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // name, n_dims, one dim, type, offset

template <typename T>
T load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

const char* value_type_name(ValueType type) {
  static constexpr const char* kNames[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                           "int32",  "float32", "bool",   "string", "array",
                                           "uint64", "int64",   "float64"};
  return kNames[static_cast<uint32_t>(type)];
}

/// Size in bytes of a value; 0 for strings and arrays, whose size varies.
uint64_t value_size(ValueType type) {
  switch (type) {
    case ValueType::kUint8:
    case ValueType::kInt8:
    case ValueType::kBool:
      return 1;
    case ValueType::kUint16:
    case ValueType::kInt16:
      return 2;
    case ValueType::kUint32:
    case ValueType::kInt32:
    case ValueType::kFloat32:
      return 4;
    case ValueType::kUint64:
    case ValueType::kInt64:
    case ValueType::kFloat64:
      return 8;
    case ValueType::kString:
    case ValueType::kArray:
      return 0;
  }
  return 0;
}

bool valid_utf8(const uint8_t* p, uint64_t size) {
  for (uint64_t at = 0; at < size;) {
    const Utf8Step step = utf8_step(p + at, size - at);
    if (step.status != Utf8Status::kValid) return false;
    at += static_cast<uint64_t>(step.length);
  }
  return true;
}

std::string describe(const Value& value) {
  if (value.type != ValueType::kArray) return value_type_name(value.type);
  return std::string("an array of ") + value_type_name(value.element);
}

[[noreturn]] void wrong_type(const std::string& path, std::string_view key, const Value& value,
                             const char* wanted) {
  throw Error(ErrorKind::kFile,
              format("%s: the value of key %s is %s, but %s is needed", quoted(path, 4096).c_str(),
                     quoted(std::string(key)).c_str(), describe(value).c_str(), wanted));
}

[[noreturn]] void out_of_range(const std::string& path, std::string_view key, const char* wanted) {
  throw Error(ErrorKind::kFile,
              format("%s: the value of key %s is not %s", quoted(path, 4096).c_str(),
                     quoted(std::string(key)).c_str(), wanted));
}

/// Loads an integer of any type as its sign and 64 bits; returns false for other types.
bool load_integer(ValueType type, const uint8_t* p, bool* negative, uint64_t* bits) {
  int64_t value = 0;
  switch (type) {
    case ValueType::kUint8:
      value = load<uint8_t>(p);
      break;
    case ValueType::kInt8:
      value = load<int8_t>(p);
      break;
    case ValueType::kUint16:
      value = load<uint16_t>(p);
      break;
    case ValueType::kInt16:
      value = load<int16_t>(p);
      break;
    case ValueType::kUint32:
      value = load<uint32_t>(p);
      break;
    case ValueType::kInt32:
      value = load<int32_t>(p);
      break;
    case ValueType::kInt64:
      value = load<int64_t>(p);
      break;
    case ValueType::kUint64:
      *negative = false;
      *bits = load<uint64_t>(p);
      return true;
    default:
      return false;
  }
  *negative = value < 0;
  *bits = static_cast<uint64_t>(value);
  return true;
}

}  // namespace

/// Parses header, metadata and tensor list in one pass, then places the tensors in the data
/// section.
class GgufParser {
 public:
  explicit GgufParser(GgufFile* file) : out_(*file), file_(*file->files_[0]), size_(file_.size()) {}

  void parse() {
    header();
    for (uint64_t i = 0; i < key_count_; ++i) key_value(i);
    for (uint64_t i = 0; i < tensor_count_; ++i) tensor(i);
    place_tensors();
    file_.check_unchanged();
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::kFile, out_.quoted_path() + ": " + what);
  }

  uint64_t left() const { return size_ - at_; }

  /// Skips `bytes` bytes; `what` completes the sentence "the file ends inside …".
  void skip(uint64_t bytes, const char* what) {
    if (bytes > left()) {
      fail(
          format("the file ends inside %s (%llu bytes needed at byte %llu, %llu left); it is "
                 "truncated or damaged, fetch it again",
                 what, static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(at_),
                 static_cast<unsigned long long>(left())));
    }
    at_ += bytes;
  }

  /// Returns the next `bytes` bytes; the pointer is valid until the next call.
  const uint8_t* take(uint64_t bytes, const char* what) {
    const uint64_t start = at_;
    skip(bytes, what);
    if (start < window_start_ || at_ > window_start_ + window_.size()) {
      window_.resize(static_cast<size_t>(std::min(std::max(bytes, kWindow), size_ - start)));
      file_.read(start, window_.size(), window_.data());
      window_start_ = start;
    }
    return window_.data() + (start - window_start_);
  }

  template <typename T>
  T read(const char* what) {
    return load<T>(take(sizeof(T), what));
  }

  // Rejects files that a failed download leaves under a model's name, and those of other kinds.
  void refuse_impostor() const {
    std::string start(static_cast<size_t>(std::min<uint64_t>(size_, 512)), '\0');
    file_.read(0, start.size(), reinterpret_cast<uint8_t*>(start.data()));
    static constexpr std::pair<std::string_view, const char*> kKinds[] = {
        {"version https://git-lfs.github.com/",
         "this is a Git LFS pointer, which only names the file; fetch the file itself (git lfs "
         "pull), or download it"},
        {"/annex/objects/",
         "this is a git-annex pointer, which only names the file; fetch the file "
         "itself (git annex get), or download it"},
        {"# xet version", "this is a pointer of Xet, which only names the file; download the file"},
        {std::string_view("\0\0\0\0", 4),
         "this is an unfinished download, which begins with zeros; download it again"},
        {"\x1F\x8B", "this is compressed (gzip); unpack it first"},
        {"PK\x03\x04",
         "this is an archive, such as PyTorch's; unpack it, or convert the model from "
         "its safetensors"},
    };
    for (const auto& [beginning, what] : kKinds)
      if (start.starts_with(beginning)) fail(what);
    size_t at = start.starts_with("\xEF\xBB\xBF") ? 3 : 0;
    at = std::min(start.find_first_not_of(" \t\r\n", at), start.size());
    std::string text = start.substr(at);
    for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    for (const char* page : {"<!doctype", "<html", "<!--", "<?xml", "<error"})
      if (text.starts_with(page))
        fail("this is a web page, not the file; download it by the link to the file itself");
    for (const char* answer :
         {"{\"error", "entry not found", "access to model", "invalid username"})
      if (text.starts_with(answer))
        fail(
            "this is the answer of a server that refused the file; download it again, with the "
            "access that it needs");
  }

  void header() {
    const uint8_t* magic = take(4, "the header");
    if (std::memcmp(magic, "GGUF", 4) != 0) {
      refuse_impostor();
      fail(
          format("this is not a GGUF file: it begins with bytes %02x %02x %02x %02x instead of "
                 "'GGUF'; convert the model with 'gemtp convert'",
                 magic[0], magic[1], magic[2], magic[3]));
    }
    const uint32_t version = read<uint32_t>("the header");
    if (version != 0 && (version & 0xFFFFu) == 0) {
      fail(
          "the file is byte-swapped, written for a big-endian machine; convert it with "
          "gguf-convert-endian first");
    }
    if (version == 1) {
      fail(
          "the file has version 1 of the format, whose layout is another one; convert the model "
          "again to get version 3");
    }
    if (version != 2 && version != 3) {
      fail(format("the file has version %u of the format, but only 2 and 3 are known here",
                  version));
    }
    out_.version_ = version;
    tensor_count_ = read<uint64_t>("the header");
    key_count_ = read<uint64_t>("the header");
    if (tensor_count_ > left() / kMinTensorBytes || key_count_ > left() / kMinKeyValueBytes) {
      fail(format(
          "the header claims %llu tensors and %llu keys, more than a file of %llu bytes can "
          "hold; it is truncated or damaged, fetch it again",
          static_cast<unsigned long long>(tensor_count_),
          static_cast<unsigned long long>(key_count_), static_cast<unsigned long long>(size_)));
    }
  }

  ValueType value_type(const std::string& key) {
    const uint32_t type = read<uint32_t>("the metadata");
    if (type > static_cast<uint32_t>(ValueType::kFloat64)) {
      fail(format("key %s has a value of type %u, which the format does not know",
                  quoted(key).c_str(), type));
    }
    return static_cast<ValueType>(type);
  }

  void key_value(uint64_t index) {
    const uint64_t length = read<uint64_t>("the metadata");
    if (length == 0) fail(format("key %llu is empty", static_cast<unsigned long long>(index)));
    if (length > kMaxKeyBytes) {
      fail(format("key %llu is %llu bytes long, but the format allows 65535",
                  static_cast<unsigned long long>(index), static_cast<unsigned long long>(length)));
    }
    const uint8_t* bytes = take(length, "the metadata");
    std::string key(reinterpret_cast<const char*>(bytes), length);
    if (!valid_utf8(bytes, length)) fail("key " + quoted(key) + " is not valid UTF-8");

    Value value;
    value.type = value_type(key);
    if (value.type == ValueType::kArray) {
      value.element = value_type(key);
      value.count = read<uint64_t>("the metadata");
      if (value.element == ValueType::kArray) {
        fail("key " + quoted(key) + " holds an array of arrays, which is not supported");
      }
      // A string takes at least its length field.
      const uint64_t smallest =
          value.element == ValueType::kString ? sizeof(uint64_t) : value_size(value.element);
      if (value.count > left() / smallest) {
        fail(
            format("the array of key %s claims %llu elements, more than the %llu bytes left can "
                   "hold; the file is truncated or damaged, fetch it again",
                   quoted(key).c_str(), static_cast<unsigned long long>(value.count),
                   static_cast<unsigned long long>(left())));
      }
    } else {
      value.element = value.type;
    }
    value.offset = at_;
    if (value.element == ValueType::kString) {
      for (uint64_t i = 0; i < value.count; ++i) {
        skip(read<uint64_t>("a string of the metadata"), "a string of the metadata");
      }
    } else {
      skip(value.count * value_size(value.element), "the metadata");
    }
    value.bytes = at_ - value.offset;

    if (!out_.values_.emplace(key, value).second) {
      fail("key " + quoted(key) + " appears twice");
    }
    out_.key_order_.push_back(std::move(key));
  }

  void tensor(uint64_t index) {
    const uint64_t length = read<uint64_t>("the list of tensors");
    if (length == 0) {
      fail(format("tensor %llu has an empty name", static_cast<unsigned long long>(index)));
    }
    if (length > kMaxTensorNameBytes) {
      fail(format("the name of tensor %llu is %llu bytes long, but the format allows 64",
                  static_cast<unsigned long long>(index), static_cast<unsigned long long>(length)));
    }
    const uint8_t* bytes = take(length, "the list of tensors");
    Tensor tensor;
    tensor.name.assign(reinterpret_cast<const char*>(bytes), length);
    const auto name = [&] { return quoted(tensor.name, kMaxTensorNameBytes); };
    if (!valid_utf8(bytes, length)) fail("the tensor name " + name() + " is not valid UTF-8");

    const uint32_t dims = read<uint32_t>("the list of tensors");
    if (dims == 0 || dims > kMaxDims) {
      fail(format("tensor %s has %u dimensions, but 1 to 4 are possible", name().c_str(), dims));
    }
    uint64_t elements = 1;
    constexpr uint64_t kMaxElements = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    for (uint32_t i = 0; i < dims; ++i) {
      const uint64_t dim = read<uint64_t>("the list of tensors");
      if (dim == 0) fail("a dimension of tensor " + name() + " is zero");
      if (dim > kMaxElements / elements) {
        fail("the shape of tensor " + name() + " has more elements than 63 bits can count");
      }
      elements *= dim;
      tensor.shape.push_back(static_cast<int64_t>(dim));
    }
    tensor.type = read<uint32_t>("the list of tensors");
    const DTypeInfo* info = dtype_info(tensor.type);
    if (info == nullptr) {
      fail(format("tensor %s has type %u, which is not known here; a newer version may read it",
                  name().c_str(), tensor.type));
    }
    if (tensor.shape[0] % info->block != 0) {
      fail(format("tensor %s has rows of %lld elements, but type %s stores blocks of %d",
                  name().c_str(), static_cast<long long>(tensor.shape[0]), info->name,
                  info->block));
    }
    const uint64_t blocks = elements / static_cast<uint64_t>(info->block);
    if (blocks > kMaxElements / static_cast<uint64_t>(info->bytes)) {
      fail("the data of tensor " + name() + " would be larger than 63 bits can count");
    }
    tensor.bytes = blocks * static_cast<uint64_t>(info->bytes);
    offsets_.push_back(read<uint64_t>("the list of tensors"));
    if (!out_.tensor_index_.emplace(tensor.name, out_.tensors_.size()).second) {
      fail("tensor " + name() + " appears twice");
    }
    out_.tensors_.push_back(std::move(tensor));
  }

  uint64_t alignment() const {
    const uint64_t value = out_.get_uint("general.alignment").value_or(kDefaultAlignment);
    if (value < 8 || value > kMaxAlignment || !std::has_single_bit(value)) {
      fail(format("general.alignment is %llu, but it must be a power of two from 8 to 1048576",
                  static_cast<unsigned long long>(value)));
    }
    return value;
  }

  /// Tensors must lie in the order of the list, each at the first aligned byte after the previous
  /// one. The padding after the last one may be missing.
  void place_tensors() {
    const uint64_t align = alignment();
    const uint64_t start = (at_ + align - 1) / align * align;
    uint64_t expected = 0;  // offset from `start`
    for (size_t i = 0; i < out_.tensors_.size(); ++i) {
      Tensor& tensor = out_.tensors_[i];
      const auto name = [&] { return quoted(tensor.name, kMaxTensorNameBytes); };
      const uint64_t offset = offsets_[i];
      if (offset % align != 0) {
        fail(
            format("the data of tensor %s begins at offset %llu, which is not a multiple of the "
                   "alignment %llu",
                   name().c_str(), static_cast<unsigned long long>(offset),
                   static_cast<unsigned long long>(align)));
      }
      if (start > size_ || offset > size_ - start || tensor.bytes > size_ - start - offset) {
        fail(format(
            "the data of tensor %s (%llu bytes at offset %llu of the data) reaches beyond "
            "the end of the file (%llu bytes); it is truncated or damaged, fetch it again",
            name().c_str(), static_cast<unsigned long long>(tensor.bytes),
            static_cast<unsigned long long>(offset), static_cast<unsigned long long>(size_)));
      }
      if (offset != expected) {
        fail(
            format("the data of tensor %s begins at offset %llu, but %llu follows from the tensors "
                   "before it: the data %s",
                   name().c_str(), static_cast<unsigned long long>(offset),
                   static_cast<unsigned long long>(expected),
                   offset < expected ? "overlaps" : "has a gap"));
      }
      tensor.offset = start + offset;
      expected = (offset + tensor.bytes + align - 1) / align * align;
    }
  }

  GgufFile& out_;
  const InputFile& file_;
  const uint64_t size_;
  uint64_t at_ = 0;
  std::vector<uint8_t> window_;  // bytes of the file from window_start_ on
  uint64_t window_start_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t key_count_ = 0;
  std::vector<uint64_t> offsets_;  // as written in the file, in the order of the tensors
};

int64_t Tensor::elements() const {
  int64_t product = 1;
  for (const int64_t dim : shape) product *= dim;
  return product;
}

std::shared_ptr<GgufFile> GgufFile::open_one(const std::string& path) {
  std::shared_ptr<GgufFile> file(new GgufFile());
  file->parts_.push_back(path);
  file->files_.push_back(InputFile::open(path));
  GgufParser(file.get()).parse();
  return file;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

std::string GgufFile::quoted_path() const { return quoted(path(), 4096); }

std::vector<uint8_t> GgufFile::bytes_of(const Tensor& tensor, uint64_t bytes) const {
  std::vector<uint8_t> out(static_cast<size_t>(std::min(bytes, tensor.bytes)));
  file_of(tensor).read(tensor.offset, out.size(), out.data());
  return out;
}

std::vector<uint8_t> GgufFile::bytes_of(const Value& value) const {
  std::vector<uint8_t> out(static_cast<size_t>(value.bytes));
  files_[0]->read(value.offset, out.size(), out.data());
  files_[0]->check_unchanged();
  return out;
}

Strings::Strings(std::vector<uint8_t> bytes, uint64_t count, const std::function<void()>& fail)
    : bytes_(std::move(bytes)) {
  views_.reserve(static_cast<size_t>(count));
  size_t at = 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (bytes_.size() - at < sizeof(uint64_t)) fail();
    const auto length = load<uint64_t>(bytes_.data() + at);
    at += sizeof(uint64_t);
    if (length > bytes_.size() - at) fail();
    views_.emplace_back(reinterpret_cast<const char*>(bytes_.data() + at),
                        static_cast<size_t>(length));
    at += static_cast<size_t>(length);
  }
}

const Value* GgufFile::find(std::string_view key) const {
  const auto it = values_.find(std::string(key));
  return it == values_.end() ? nullptr : &it->second;
}

const Tensor* GgufFile::find_tensor(std::string_view name) const {
  const auto it = tensor_index_.find(std::string(name));
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

std::optional<uint64_t> GgufFile::get_uint(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  bool negative = false;
  uint64_t bits = 0;
  if (!load_integer(value->type, bytes_of(*value).data(), &negative, &bits)) {
    wrong_type(path(), key, *value, "an integer");
  }
  if (negative) out_of_range(path(), key, "a non-negative integer");
  return bits;
}

std::optional<int64_t> GgufFile::get_int(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  bool negative = false;
  uint64_t bits = 0;
  if (!load_integer(value->type, bytes_of(*value).data(), &negative, &bits)) {
    wrong_type(path(), key, *value, "an integer");
  }
  if (!negative && bits > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    out_of_range(path(), key, "an integer of 63 bits");
  }
  return static_cast<int64_t>(bits);
}

std::optional<double> GgufFile::get_float(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type == ValueType::kFloat32) return load<float>(bytes_of(*value).data());
  if (value->type == ValueType::kFloat64) return load<double>(bytes_of(*value).data());
  wrong_type(path(), key, *value, "a float");
}

std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != ValueType::kBool) wrong_type(path(), key, *value, "a bool");
  const uint8_t byte = bytes_of(*value)[0];
  if (byte > 1) out_of_range(path(), key, "a bool of 0 or 1");
  return byte != 0;
}

std::optional<std::string> GgufFile::get_string(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != ValueType::kString) wrong_type(path(), key, *value, "a string");
  const std::vector<uint8_t> bytes = bytes_of(*value);
  const uint8_t* text = bytes.data() + sizeof(uint64_t);
  const size_t length = bytes.size() - sizeof(uint64_t);
  if (!valid_utf8(text, length)) out_of_range(path(), key, "valid UTF-8");
  return std::string(reinterpret_cast<const char*>(text), length);
}

std::optional<std::vector<int64_t>> GgufFile::get_ints(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != ValueType::kArray) wrong_type(path(), key, *value, "an array of integers");
  const uint64_t size = value_size(value->element);
  bool negative = false;
  uint64_t bits = 0;
  if (size == 0 || value->element == ValueType::kFloat32 || value->element == ValueType::kFloat64) {
    wrong_type(path(), key, *value, "an array of integers");
  }
  const std::vector<uint8_t> bytes = bytes_of(*value);
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(value->count));
  if (value->element == ValueType::kBool) {
    for (const uint8_t byte : bytes) {
      if (byte > 1) out_of_range(path(), key, "an array of bools of 0 or 1");
      out.push_back(byte);
    }
    return out;
  }
  for (uint64_t i = 0; i < value->count; ++i) {
    load_integer(value->element, bytes.data() + i * size, &negative, &bits);
    if (!negative && bits > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      out_of_range(path(), key, "an array of integers of 63 bits");
    }
    out.push_back(static_cast<int64_t>(bits));
  }
  return out;
}

std::optional<std::vector<float>> GgufFile::get_floats(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != ValueType::kArray || value->element != ValueType::kFloat32) {
    wrong_type(path(), key, *value, "an array of float32");
  }
  const std::vector<uint8_t> bytes = bytes_of(*value);
  std::vector<float> out(static_cast<size_t>(value->count));
  if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

std::optional<Strings> GgufFile::get_strings(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != ValueType::kArray || value->element != ValueType::kString) {
    wrong_type(path(), key, *value, "an array of strings");
  }
  // Bounds are checked again: another process may have written into the file since.
  return Strings(bytes_of(*value), value->count,
                 [&] { out_of_range(path(), key, "what it was when opened"); });
}

}  // namespace gemtp
