#include "base/whole_file.h"

#include <cerrno>
#include <cstdint>
#include <random>
#include <system_error>
#include <utility>

#include "base/error.h"

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>

#include <chrono>
#include <thread>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace gemtp {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxLinks = 40;  // the limit of Linux

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw Error(ErrorKind::kFile, quoted(path, 4096) + " " + what);
}

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void refuse_kind(const std::string& path, fs::file_type type) {
  refuse(path, type == fs::file_type::directory
                   ? "is not a file but a folder; name the file inside it"
                   : "is not a file but a pipe, a socket or a device; name a file");
}

// Resolves links, whether or not the target exists.
fs::path followed(const std::string& path) {
  fs::path at = system_path(path);
  std::error_code error;
  for (int i = 0; fs::is_symlink(fs::symlink_status(at, error)); ++i) {
    const fs::path to = fs::read_symlink(at, error);
    if (error || i == kMaxLinks) refuse(path, "is a link that leads nowhere; name a file");
    at = at.parent_path() / to;  // an absolute path replaces the part before it
  }
  return at;
}

// Returns a temporary name: short, so that it is valid wherever the destination's name is, and
// unpredictable, so that nobody can have placed a link there.
fs::path name_beside(const fs::path& destination) {
  std::random_device random;
  const uint64_t number = uint64_t{random()} << 32 | random();
  return destination.parent_path() /
         format(".gemtp.tmp-%016llx", static_cast<unsigned long long>(number));
}

// Creates a file that only its owner may access. Returns null and sets errno on failure.
std::FILE* create(const fs::path& path) {
#ifdef _WIN32
  const int fd = ::_wopen(path.c_str(), _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY | _O_NOINHERIT,
                          _S_IREAD | _S_IWRITE);
  return fd < 0 ? nullptr : ::_fdopen(fd, "wb");
#else
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  return fd < 0 ? nullptr : ::fdopen(fd, "wb");
#endif
}

bool sync(std::FILE* file) {
#ifdef _WIN32
  return std::fflush(file) == 0 && ::_commit(::_fileno(file)) == 0;
#else
  return std::fflush(file) == 0 && ::fsync(::fileno(file)) == 0;
#endif
}

// Whether an ordinary program could write to this existing file.
bool writable(const fs::path& path) {
#ifdef _WIN32
  return ::_waccess(path.c_str(), 2) == 0;
#else
  return ::access(path.c_str(), W_OK) == 0;
#endif
}

// Replaces an existing file, even one that is being read.
void rename_over(const fs::path& from, const fs::path& to, std::error_code& error) {
  fs::rename(from, to, error);
#ifdef _WIN32
  // Virus scanners and indexers briefly hold new files open.
  for (int i = 0; error && i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    fs::rename(from, to, error);
  }
#endif
}

// Syncs the folder, so that the new name survives a power failure. Not every file system supports
// this.
void sync_folder(const fs::path& file) {
#ifndef _WIN32
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
#else
  static_cast<void>(file);
#endif
}

}  // namespace

fs::path system_path(const std::string& path) {
  if (path.empty()) throw Error(ErrorKind::kFile, "the path of the file is empty");
  if (path.find('\0') != std::string::npos) refuse(path, "is not a path: it contains a zero byte");
#ifdef _WIN32
  try {
    return fs::path(std::u8string(path.begin(), path.end()));
  } catch (const std::exception&) {
    refuse(path, "is not a valid UTF-8 path");
  }
#else
  return fs::path(path);
#endif
}

std::FILE* open_regular(const std::string& path) {
  const fs::path at = system_path(path);
#ifdef _WIN32
  std::error_code unknown;
  const fs::file_type type = fs::status(at, unknown).type();
  if (type != fs::file_type::regular && type != fs::file_type::not_found) refuse_kind(path, type);
  std::FILE* file = ::_wfopen(at.c_str(), L"rb");
#else
  // Non-blocking, so that a pipe without a writer is rejected below instead of blocking here.
  const int fd = ::open(at.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat info;
  if (fd >= 0 && ::fstat(fd, &info) == 0 && !S_ISREG(info.st_mode)) {
    ::close(fd);
    refuse_kind(path, S_ISDIR(info.st_mode) ? fs::file_type::directory : fs::file_type::character);
  }
  std::FILE* file = fd < 0 ? nullptr : ::fdopen(fd, "rb");
#endif
  if (!file) refuse(path, "cannot be opened: " + reason(errno));
  return file;
}

WholeFile::WholeFile(const std::string& path) : path_(path), destination_(followed(path)) {
  std::error_code error;
  const fs::file_type type = fs::status(destination_, error).type();
  if (type != fs::file_type::not_found) {
    if (type != fs::file_type::regular && type != fs::file_type::none) refuse_kind(path_, type);
    if (type == fs::file_type::none || !writable(destination_))
      refuse(path_, "cannot be written: " + (error ? error.message() : reason(errno)));
  }
  temporary_ = name_beside(destination_);
  file_ = create(temporary_);
  if (!file_) fail();
}

WholeFile::~WholeFile() {
  if (file_) std::fclose(file_);
  if (temporary_.empty()) return;
  std::error_code gone;
  fs::remove(temporary_, gone);
}

void WholeFile::write(const void* data, size_t n) {
  if (std::fwrite(data, 1, n, file_) != n) fail();
}

void WholeFile::complete() {
  if (!sync(file_)) fail();
  if (std::fclose(std::exchange(file_, nullptr)) != 0) fail();
  std::error_code error;
  rename_over(temporary_, destination_, error);
  if (error) refuse(path_, "cannot be written: " + error.message());
  temporary_.clear();
  sync_folder(destination_);
}

void WholeFile::fail() const { refuse(path_, "cannot be written: " + reason(errno)); }

}  // namespace gemtp
