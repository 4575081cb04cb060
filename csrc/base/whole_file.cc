#include "base/whole_file.h"

#include <algorithm>
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

constexpr int kMaxLinks = 40;                  // the limit of Linux
constexpr size_t kMaxWrite = size_t{1} << 30;  // bytes of one system call

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

// Creates a file that only its owner may access. Returns a descriptor; -1 on failure, of which
// errno tells.
int create(const fs::path& path) {
#ifdef _WIN32
  return ::_wopen(path.c_str(), _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY | _O_NOINHERIT,
                  _S_IREAD | _S_IWRITE);
#else
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
#endif
}

// These return whether it was done, and else errno tells why not. Signals do not stop them.
bool write_all(int fd, const char* data, size_t n) {
  while (n > 0) {
    const size_t asked = std::min(n, kMaxWrite);
#ifdef _WIN32
    const int wrote = ::_write(fd, data, static_cast<unsigned>(asked));
#else
    const ssize_t wrote = ::write(fd, data, asked);
#endif
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote == 0) errno = EIO;
    if (wrote <= 0) return false;
    data += wrote;
    n -= static_cast<size_t>(wrote);
  }
  return true;
}
bool sync(int fd) {
#ifdef _WIN32
  return ::_commit(fd) == 0;
#else
  for (;;) {
    if (::fsync(fd) == 0) return true;
    if (errno != EINTR) return false;
  }
#endif
}
bool close_file(int fd) {
#ifdef _WIN32
  return ::_close(fd) == 0;
#else
  return ::close(fd) == 0 || errno == EINTR;  // after which it is closed
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

WholeFile::WholeFile(const std::string& path) : path_(path), destination_(followed(path)) {
  std::error_code error;
  const fs::file_type type = fs::status(destination_, error).type();
  if (type != fs::file_type::not_found) {
    if (type != fs::file_type::regular && type != fs::file_type::none) refuse_kind(path_, type);
    if (type == fs::file_type::none || !writable(destination_))
      refuse(path_, "cannot be written: " + (error ? error.message() : reason(errno)));
  }
  temporary_ = name_beside(destination_);
  fd_ = create(temporary_);
  if (fd_ < 0) fail();
}

WholeFile::~WholeFile() {
  if (fd_ >= 0) close_file(fd_);
  if (temporary_.empty()) return;
  std::error_code gone;
  fs::remove(temporary_, gone);
}

void WholeFile::write(const void* data, size_t n) {
  if (!write_all(fd_, static_cast<const char*>(data), n)) fail();
}

void WholeFile::complete() {
  if (!sync(fd_)) fail();
  if (!close_file(std::exchange(fd_, -1))) fail();
  std::error_code error;
  rename_over(temporary_, destination_, error);
  if (error) refuse(path_, "cannot be written: " + error.message());
  temporary_.clear();
  sync_folder(destination_);
}

void WholeFile::fail() const { refuse(path_, "cannot be written: " + reason(errno)); }

}  // namespace gemtp
