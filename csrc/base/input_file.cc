#include "base/input_file.h"

#include <algorithm>

#include "base/error.h"

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>

#include <system_error>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace gemtp {
namespace {

constexpr size_t kMaxRead = size_t{1} << 30;  // bytes requested in one system call

#ifdef _WIN32

std::string last_error() {
  return std::system_category().message(static_cast<int>(GetLastError()));
}

/// Returns an empty string if the path is not UTF-8.
std::wstring widen(const std::string& path) {
  const int bytes = static_cast<int>(path.size());
  const int units =
      MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), bytes, nullptr, 0);
  std::wstring wide(static_cast<size_t>(std::max(units, 0)), L'\0');
  MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), bytes, wide.data(), units);
  return wide;
}

#else

std::string last_error() { return std::strerror(errno); }

#endif

}  // namespace

std::unique_ptr<InputFile> InputFile::open(const std::string& path) {
  if (path.empty()) throw Error(ErrorKind::kFile, "the path of the file is empty");
  return std::unique_ptr<InputFile>(new InputFile(path));
}

void InputFile::fail(const std::string& what) const {
  throw Error(ErrorKind::kFile, quoted_path_ + " " + what);
}

void InputFile::read(uint64_t offset, size_t bytes, void* to) const {
  for (size_t done = 0; done < bytes;) {
    const size_t got = read_some(offset + done, std::min(bytes - done, kMaxRead),
                                 static_cast<uint8_t*>(to) + done);
    if (got == 0)
      fail(
          format("became shorter while in use: it ends at byte %llu of %llu; put the whole file "
                 "back and open it again",
                 static_cast<unsigned long long>(stamp().size),
                 static_cast<unsigned long long>(stamp_.size)));
    done += got;
  }
}

void InputFile::check_unchanged() const {
  const Stamp now = stamp();
  if (now == stamp_) return;
  if (now.size == stamp_.size) fail("was changed while in use; open it again");
  fail(format(
      "was changed while in use: it has %llu bytes and had %llu; put the whole file back "
      "and open it again",
      static_cast<unsigned long long>(now.size), static_cast<unsigned long long>(stamp_.size)));
}

#ifdef _WIN32

InputFile::InputFile(const std::string& path) : quoted_path_(quoted(path, 4096)) {
  if (path.find('\0') != std::string::npos) fail("is not a path: it contains a zero byte");
  const std::wstring wide = widen(path);
  if (wide.empty()) fail("is not a valid UTF-8 path");
  const DWORD attributes = GetFileAttributesW(wide.c_str());
  if (attributes == INVALID_FILE_ATTRIBUTES) fail("cannot be opened: " + last_error());
  if (attributes & FILE_ATTRIBUTE_DIRECTORY) fail("is a directory; name the file inside it");
  const HANDLE handle = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr,
                                    OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (handle == INVALID_HANDLE_VALUE) fail("cannot be opened: " + last_error());
  handle_ = handle;
  try {
    if (GetFileType(handle) != FILE_TYPE_DISK)
      fail("is a pipe or a device; copy it to a regular file first");
    stamp_ = stamp();
    if (stamp_.size == 0) fail("is an empty file");
  } catch (...) {
    CloseHandle(handle);
    throw;
  }
}

InputFile::~InputFile() { CloseHandle(handle_); }

InputFile::Stamp InputFile::stamp() const {
  BY_HANDLE_FILE_INFORMATION info;
  if (!GetFileInformationByHandle(handle_, &info)) fail("cannot be examined: " + last_error());
  return {static_cast<uint64_t>(info.nFileSizeHigh) << 32 | info.nFileSizeLow,
          static_cast<int64_t>(info.ftLastWriteTime.dwHighDateTime),
          static_cast<int64_t>(info.ftLastWriteTime.dwLowDateTime)};
}

size_t InputFile::read_some(uint64_t offset, size_t bytes, void* to) const {
  OVERLAPPED at{};
  at.Offset = static_cast<DWORD>(offset);
  at.OffsetHigh = static_cast<DWORD>(offset >> 32);
  DWORD got = 0;
  if (!ReadFile(handle_, to, static_cast<DWORD>(bytes), &got, &at) &&
      GetLastError() != ERROR_HANDLE_EOF)
    fail("cannot be read: " + last_error());
  return got;
}

void InputFile::prefetch(uint64_t, uint64_t) const {}
void InputFile::expect_random() const {}

#else

InputFile::InputFile(const std::string& path) : quoted_path_(quoted(path, 4096)) {
  if (path.find('\0') != std::string::npos) fail("is not a path: it contains a zero byte");
  // Non-blocking, so that a pipe without a writer is rejected below instead of blocking here.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) fail("cannot be opened: " + last_error());
  try {
    struct stat info;
    if (::fstat(fd_, &info) != 0) fail("cannot be examined: " + last_error());
    if (S_ISDIR(info.st_mode)) fail("is a directory; name the file inside it");
    if (!S_ISREG(info.st_mode)) fail("is a pipe or a device; copy it to a regular file first");
    stamp_ = stamp();
    if (stamp_.size == 0) fail("is an empty file");
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

InputFile::~InputFile() { ::close(fd_); }

InputFile::Stamp InputFile::stamp() const {
  struct stat info;
  if (::fstat(fd_, &info) != 0) fail("cannot be examined: " + last_error());
#ifdef __APPLE__
  const timespec& changed = info.st_mtimespec;
#else
  const timespec& changed = info.st_mtim;
#endif
  return {static_cast<uint64_t>(info.st_size), changed.tv_sec, changed.tv_nsec};
}

size_t InputFile::read_some(uint64_t offset, size_t bytes, void* to) const {
  for (;;) {
    const ssize_t got = ::pread(fd_, to, bytes, static_cast<off_t>(offset));
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) fail("cannot be read: " + last_error());
  }
}

void InputFile::prefetch(uint64_t offset, uint64_t bytes) const {
#ifdef __APPLE__
  radvisory soon{static_cast<off_t>(offset), static_cast<int>(std::min<uint64_t>(bytes, kMaxRead))};
  ::fcntl(fd_, F_RDADVISE, &soon);
#else
  ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
#endif
}

void InputFile::expect_random() const {
#ifdef __APPLE__
  ::fcntl(fd_, F_RDAHEAD, 0);
#else
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_RANDOM);
#endif
}

#endif

}  // namespace gemtp
