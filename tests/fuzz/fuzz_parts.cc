// A model in several files, of which some have been edited, renamed, swapped or lost.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "fuzz.h"
#include "gguf/reader.h"
#include "gguf_edits.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

// The folder in which the parts lie, in memory if the system has a place for that.
class Folder {
 public:
  Folder() : path_(std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp") {
    path_ += "/gemtp-fuzz-parts-XXXXXX";
    FUZZ_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string part_path(int part, int count) {
  static const Folder folder;
  return folder.path() + format("/model-%05d-of-%05d.gguf", part, count);
}

void set(GgufParts* parts, const char* key, uint32_t type, uint64_t value) {
  const size_t size = type == 2 ? 2 : 4;  // u16 or i32
  parts->keys.push_back({key, type, std::string(reinterpret_cast<const char*>(&value), size)});
}

// Deals the tensors of a model out to `count` files.
std::vector<GgufParts> dealt(const GgufParts& whole, int count) {
  std::vector<GgufParts> out(static_cast<size_t>(count));
  out[0].keys = whole.keys;
  for (size_t i = 0; i < whole.tensors.size(); ++i)
    out[i * out.size() / whole.tensors.size()].tensors.push_back(whole.tensors[i]);
  for (size_t i = 0; i < out.size(); ++i) {
    set(&out[i], "split.no", 2, i);
    set(&out[i], "split.count", 2, out.size());
    set(&out[i], "split.tensors.count", 5, whole.tensors.size());
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const GgufParts whole = GgufParts::of(model_path("sound-drafter"));
  Data data(bytes, size);
  const int count = data.ConsumeIntegralInRange(1, 4);
  std::vector<GgufParts> files = dealt(whole, count);
  const bool edited = data.ConsumeIntegralInRange(0, 7) != 0;
  if (edited) edit(&files[data.ConsumeIntegralInRange<size_t>(0, files.size() - 1)], data);
  const bool swapped = data.ConsumeBool();
  if (swapped) std::swap(files.front(), files.back());
  const int lost = data.ConsumeIntegralInRange(0, 3 * count);  // none, mostly
  for (int i = 1; i <= count; ++i) {
    if (i == lost) continue;
    const std::string part = files[static_cast<size_t>(i - 1)].bytes();
    std::ofstream(part_path(i, count), std::ios::binary)
        .write(part.data(), static_cast<std::streamsize>(part.size()));
  }
  const int opened = data.ConsumeIntegralInRange(1, count);
  const bool was_refused = refused(
      [&] {
        const auto file = GgufFile::open(part_path(opened, count));
        for (const Tensor& tensor : file->tensors()) file->bytes_of(tensor, 64);
        if (edited) return;  // it may have become a file of its own
        FUZZ_CHECK(file->parts().size() == static_cast<size_t>(count));
        FUZZ_CHECK(file->tensors().size() == whole.tensors.size());
      },
      {ErrorKind::kFile, ErrorKind::kModel, ErrorKind::kMemory});
  const bool complete = lost < 1 || lost > count;
  if (!edited && !(swapped && count > 1)) FUZZ_CHECK(was_refused != complete);
  if (!edited && swapped && count > 1) FUZZ_CHECK(was_refused);
  for (int i = 1; i <= count; ++i) std::remove(part_path(i, count).c_str());
  return 0;
}
