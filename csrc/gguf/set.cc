// A model in several files: finding the parts, checking that they belong together, and the
// functions of GgufFile that depend on there being more than one file.
#include <optional>
#include <utility>

#include "base/error.h"
#include "gguf/reader.h"

namespace gemtp {
namespace {

constexpr size_t kDigits = 5;

using Count = unsigned long long;

/// A name such as name-00002-of-00003.gguf, which gives a part's index and the names of all parts.
struct PartName {
  std::string stem;  // "name", with the folder
  uint64_t index;    // from 0
  uint64_t count;

  std::string path_of(uint64_t i) const {
    return format("%s-%05llu-of-%05llu.gguf", stem.c_str(), static_cast<Count>(i + 1),
                  static_cast<Count>(count));
  }
};

std::optional<uint64_t> digits(std::string_view text) {
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  return value;
}

std::optional<PartName> part_name(std::string_view path) {
  constexpr std::string_view kOf = "-of-", kEnding = ".gguf";
  constexpr size_t kTail = 1 + kDigits + kOf.size() + kDigits + kEnding.size();
  if (path.size() < kTail) return std::nullopt;
  const std::string_view tail = path.substr(path.size() - kTail);
  const auto index = digits(tail.substr(1, kDigits));
  const auto count = digits(tail.substr(1 + kDigits + kOf.size(), kDigits));
  if (tail[0] != '-' || tail.substr(1 + kDigits, kOf.size()) != kOf ||
      tail.substr(kTail - kEnding.size()) != kEnding || !index || !count || *index < 1 ||
      *index > *count)
    return std::nullopt;
  return PartName{std::string(path.substr(0, path.size() - kTail)), *index - 1, *count};
}

}  // namespace

/// Puts the parts of a set together.
class GgufSet {
 public:
  static std::shared_ptr<GgufFile> open(std::shared_ptr<GgufFile> given) {
    const auto name = part_name(given->path());
    if (!name)
      throw Error(ErrorKind::kFile,
                  format("%s is part %llu of a model in %llu files, which find each other by their "
                         "names; give them names like model-00001-of-%05llu.gguf",
                         given->quoted_path().c_str(),
                         static_cast<Count>(given->get_uint("split.no").value_or(0)) + 1,
                         static_cast<Count>(*given->get_uint("split.count")),
                         static_cast<Count>(*given->get_uint("split.count"))));
    GgufSet set;
    for (uint64_t i = 0; i < name->count; ++i)
      set.add(i == name->index ? given : open_part(*name, i), i, name->count);
    set.check_count();
    return set.out_;
  }

 private:
  [[noreturn]] static void fail(const GgufFile& file, const std::string& what) {
    throw Error(ErrorKind::kFile, file.quoted_path() + ": " + what);
  }

  static std::shared_ptr<GgufFile> open_part(const PartName& name, uint64_t i) {
    try {
      return GgufFile::open_one(name.path_of(i));
    } catch (const Error& e) {
      throw Error(e.kind(),
                  format("%s (it is part %llu of the %llu that the model consists of)", e.what(),
                         static_cast<Count>(i + 1), static_cast<Count>(name.count)));
    }
  }

  void add(std::shared_ptr<GgufFile> part, uint64_t i, uint64_t count) {
    const auto number = part->get_uint("split.no"), of = part->get_uint("split.count");
    if (number != i || of != count)
      fail(*part, format("by its name it is part %llu of %llu, by its metadata it is not; fetch it "
                         "again under its own name",
                         static_cast<Count>(i + 1), static_cast<Count>(count)));
    if (!out_) {
      out_ = std::move(part);
      return;
    }
    check_same_model(*part);
    for (Tensor& tensor : part->tensors_) {
      tensor.part = out_->files_.size();
      if (!out_->tensor_index_.emplace(tensor.name, out_->tensors_.size()).second)
        fail(*part, format("tensor %s is in %s too; the two parts do not belong together, fetch "
                           "them again",
                           quoted(tensor.name).c_str(),
                           out_->quoted_path(*out_->find_tensor(tensor.name)).c_str()));
      out_->tensors_.push_back(std::move(tensor));
    }
    out_->parts_.push_back(part->path());
    out_->files_.push_back(std::move(part->files_[0]));
  }

  // Usually only the first part describes the model; keys that another part repeats must have the
  // same value.
  void check_same_model(const GgufFile& part) const {
    for (const std::string& key : part.keys()) {
      if (key == "split.no" || key == "general.alignment") continue;
      const Value* first = out_->find(key);
      if (first && !equal(*first, part, *part.find(key)))
        fail(part, format("key %s is not what it is in %s; the two parts are of different models",
                          quoted(key).c_str(), out_->quoted_path().c_str()));
    }
  }

  bool equal(const Value& first, const GgufFile& part, const Value& other) const {
    return first.type == other.type && first.element == other.element &&
           first.bytes == other.bytes && out_->bytes_of(first) == part.bytes_of(other);
  }

  void check_count() const {
    const auto wanted = out_->get_uint("split.tensors.count");
    if (wanted && *wanted != out_->tensors_.size())
      fail(*out_, format("the model has %llu tensors by its metadata, but %zu are in its %zu "
                         "parts; one of them is of another model, fetch them again",
                         static_cast<Count>(*wanted), out_->tensors_.size(), out_->parts_.size()));
  }

  std::shared_ptr<GgufFile> out_;  // the first part, to which the others are added
};

std::shared_ptr<const GgufFile> GgufFile::open(const std::string& path) {
  std::shared_ptr<GgufFile> file = open_one(path);
  if (file->get_uint("split.count").value_or(1) <= 1) return file;
  return GgufSet::open(std::move(file));
}

std::string GgufFile::quoted_path(const Tensor& tensor) const {
  return quoted(parts_[tensor.part], 4096);
}

uint64_t GgufFile::size() const {
  uint64_t sum = 0;
  for (const auto& file : files_) sum += file->size();
  return sum;
}

void GgufFile::check_unchanged() const {
  for (const auto& file : files_) file->check_unchanged();
}
void GgufFile::expect_random() const {
  for (const auto& file : files_) file->expect_random();
}

}  // namespace gemtp
