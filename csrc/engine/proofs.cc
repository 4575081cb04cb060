#include "engine/proofs.h"

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <vector>

#include "base/build_info.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/input_file.h"
#include "base/whole_file.h"

namespace gemtp {
namespace {

constexpr uint64_t kMostBytes = 1 << 16;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// The folder for caches, as gemtp_native/profile/file.py finds it; "" if there is none.
std::string cache_folder() {
  if (const std::string own = variable("GEMTP_CACHE_DIR"); !own.empty()) return own;
#ifdef _WIN32
  const std::string place = variable("LOCALAPPDATA");
#else
  const std::string home = variable("HOME");
#ifdef __APPLE__
  const std::string place = home.empty() ? "" : home + "/Library/Caches";
#else
  std::string place = variable("XDG_CACHE_HOME");
  if (place.empty() || place[0] != '/') place = home.empty() ? "" : home + "/.cache";
#endif
#endif
  return place.empty() ? "" : place + "/gemtp";
}

}  // namespace

Proofs::Proofs(const std::string& device, const std::string& identity) {
  const std::string folder = cache_folder(), build = build_identity();
  if (folder.empty() || build.empty()) return;
  std::string name = device;
  for (char& c : name)
    if (c == ':') c = '-';
  path_ = folder + "/self-test/" + name + ".txt";
  owner_ = "gemtp self-test\ngpu " + identity + "\nbuild " + build + "\n";
  try {
    const auto file = InputFile::open(path_);
    if (file->size() > kMostBytes) return;
    std::string text(file->size(), '\0');
    file->read(0, text.size(), text.data());
    if (!text.starts_with(owner_)) return;
    std::istringstream lines(text.substr(owner_.size()));
    for (std::string line; std::getline(lines, line);)
      if (line.starts_with("exact ")) names_.insert(line.substr(6));
    if (text != contents()) names_.clear();
  } catch (const Error&) {
  }
}

std::string Proofs::contents() const {
  std::string text = owner_;
  for (const std::string& name : names_) text += "exact " + name + "\n";
  Hash64 hash;
  hash.add(text.data(), text.size());
  return text + format("end %016llx\n", static_cast<unsigned long long>(hash.value()));
}

void Proofs::save() const noexcept {
  if (path_.empty()) return;
  try {
    std::filesystem::create_directories(system_path(path_).parent_path());
    const std::string text = contents();
    WholeFile file(path_);
    file.write(text.data(), text.size());
    file.complete();
  } catch (const std::exception&) {
  }
}

}  // namespace gemtp
