#include "base/mapped_file.h"

#include <algorithm>
#include <limits>

#include "base/cpu_info.h"
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace gemtp {
namespace {

constexpr size_t kMaxRead = size_t{1} << 30;  // bytes asked for in one read call

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(ErrorKind::kFile, quoted(path, 4096) + " " + what);
}

size_t checked_size(const std::string& path, uint64_t size) {
  if (size == 0) fail(path, "is an empty file");
  if (size > static_cast<uint64_t>(std::numeric_limits<ptrdiff_t>::max())) {
    fail(path, "is larger than this process can address; use a 64-bit build");
  }
  return static_cast<size_t>(size);
}

// Before a copy of a whole file is read.
void check_room(const std::string& path, size_t size) {
  const uint64_t room = available_memory();
  if (room && size > room)
    throw Error(ErrorKind::kMemory,
                format("%s is %.2f GB and this process may use %.2f GB of memory; open it with "
                       "mmap=True",
                       quoted(path, 4096).c_str(), static_cast<double>(size) * 1e-9,
                       static_cast<double>(room) * 1e-9));
}

size_t page_size() {
#ifdef _WIN32
  SYSTEM_INFO info;
  GetSystemInfo(&info);
  return info.dwPageSize;
#else
  return static_cast<size_t>(::sysconf(_SC_PAGESIZE));
#endif
}

// The whole pages inside [offset, offset + bytes) of a file of `size` bytes, whose last page ends
// with it.
struct Pages {
  size_t first, last;
};
Pages whole_pages(size_t offset, size_t bytes, size_t size) {
  static const size_t page = page_size();
  if (offset >= size) return {0, 0};
  const size_t end = offset + std::min(bytes, size - offset);
  return {(offset + page - 1) / page * page, end == size ? end : end / page * page};
}

#ifdef _WIN32

std::string last_error() {
  return std::system_category().message(static_cast<int>(GetLastError()));
}

std::wstring widen(const std::string& path) {
  const int bytes = static_cast<int>(path.size());
  const int units =
      MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), bytes, nullptr, 0);
  if (units <= 0) fail(path, "is not a valid UTF-8 path");
  std::wstring wide(static_cast<size_t>(units), L'\0');
  MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), bytes, wide.data(), units);
  return wide;
}

struct OwnedHandle {
  HANDLE handle;
  ~OwnedHandle() {
    if (handle != nullptr && handle != INVALID_HANDLE_VALUE) CloseHandle(handle);
  }
};

#else

#ifdef MAP_ANONYMOUS
constexpr int kAnonymous = MAP_ANONYMOUS;
#else
constexpr int kAnonymous = MAP_ANON;
#endif

std::string last_error() { return std::strerror(errno); }

struct OwnedDescriptor {
  int fd;
  ~OwnedDescriptor() {
    if (fd >= 0) ::close(fd);
  }
};

#endif

}  // namespace

#ifdef _WIN32

std::unique_ptr<MappedFile> MappedFile::open(const std::string& path, bool mmap) {
  if (path.empty()) throw Error(ErrorKind::kFile, "the path of the file is empty");
  if (path.find('\0') != std::string::npos) fail(path, "is not a path: it contains a zero byte");
  const std::wstring wide = widen(path);
  const DWORD attributes = GetFileAttributesW(wide.c_str());
  if (attributes == INVALID_FILE_ATTRIBUTES) fail(path, "cannot be opened: " + last_error());
  if (attributes & FILE_ATTRIBUTE_DIRECTORY) fail(path, "is a directory; name the file inside it");
  const OwnedHandle file{CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr,
                                     OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr)};
  if (file.handle == INVALID_HANDLE_VALUE) fail(path, "cannot be opened: " + last_error());
  LARGE_INTEGER length;
  if (!GetFileSizeEx(file.handle, &length)) fail(path, "has no size: " + last_error());

  std::unique_ptr<MappedFile> out(new MappedFile());
  out->size_ = checked_size(path, static_cast<uint64_t>(length.QuadPart));
  if (mmap) {
    OwnedHandle mapping{CreateFileMappingW(file.handle, nullptr, PAGE_READONLY, 0, 0, nullptr)};
    if (mapping.handle == nullptr) fail(path, "cannot be mapped: " + last_error());
    const void* view = MapViewOfFile(mapping.handle, FILE_MAP_READ, 0, 0, 0);
    if (view == nullptr) fail(path, "cannot be mapped: " + last_error());
    out->data_ = static_cast<const uint8_t*>(view);
    out->mapped_ = true;
    out->handle_ = mapping.handle;
    mapping.handle = nullptr;
    return out;
  }
  check_room(path, out->size_);
  auto* copy = static_cast<uint8_t*>(
      VirtualAlloc(nullptr, out->size_, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE));
  if (copy == nullptr) fail(path, "does not fit into memory; open it with mmap=True");
  out->data_ = copy;
  for (size_t done = 0; done < out->size_;) {
    const DWORD want = static_cast<DWORD>(std::min(out->size_ - done, kMaxRead));
    DWORD got = 0;
    if (!ReadFile(file.handle, copy + done, want, &got, nullptr)) {
      fail(path, "cannot be read: " + last_error());
    }
    if (got == 0) fail(path, "became shorter while it was read");
    done += got;
  }
  return out;
}

MappedFile::~MappedFile() {
  if (mapped_)
    UnmapViewOfFile(data_);
  else if (data_ != nullptr)
    VirtualFree(const_cast<uint8_t*>(data_), 0, MEM_RELEASE);
  if (handle_ != nullptr) CloseHandle(handle_);
}

void MappedFile::prefetch(size_t, size_t) const {}
void MappedFile::expect_random(size_t, size_t) const {}

void MappedFile::release(size_t offset, size_t bytes) const {
  const auto [first, last] = whole_pages(offset, bytes, size_);
  if (!mapped_ || first >= last) return;
  // Documented side effect: unlocking pages that are not locked takes them out of the working set.
  VirtualUnlock(const_cast<uint8_t*>(data_ + first), last - first);
}

void MappedFile::discard(size_t offset, size_t bytes) const {
  if (mapped_) return release(offset, bytes);
  const auto [first, last] = whole_pages(offset, bytes, size_);
  if (first < last) DiscardVirtualMemory(const_cast<uint8_t*>(data_ + first), last - first);
}

#else

std::unique_ptr<MappedFile> MappedFile::open(const std::string& path, bool mmap) {
  if (path.empty()) throw Error(ErrorKind::kFile, "the path of the file is empty");
  if (path.find('\0') != std::string::npos) fail(path, "is not a path: it contains a zero byte");
  // Non-blocking, so that a pipe without a writer is refused below instead of waited for.
  const OwnedDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) fail(path, "cannot be opened: " + last_error());
  struct stat info;
  if (::fstat(file.fd, &info) != 0) fail(path, "cannot be examined: " + last_error());
  if (S_ISDIR(info.st_mode)) fail(path, "is a directory; name the file inside it");
  if (!S_ISREG(info.st_mode)) fail(path, "is a pipe or a device; copy it to a regular file first");

  std::unique_ptr<MappedFile> out(new MappedFile());
  out->size_ = checked_size(path, static_cast<uint64_t>(info.st_size));
  if (mmap) {
    void* view = ::mmap(nullptr, out->size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (view == MAP_FAILED) fail(path, "cannot be mapped: " + last_error());
    out->data_ = static_cast<const uint8_t*>(view);
    out->mapped_ = true;
    return out;
  }
  check_room(path, out->size_);
  void* view = ::mmap(nullptr, out->size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | kAnonymous, -1, 0);
  if (view == MAP_FAILED) fail(path, "does not fit into memory; open it with mmap=True");
  auto* copy = static_cast<uint8_t*>(view);
  out->data_ = copy;
  for (size_t done = 0; done < out->size_;) {
    const ssize_t got = ::read(file.fd, copy + done, std::min(out->size_ - done, kMaxRead));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path, "cannot be read: " + last_error());
    if (got == 0) fail(path, "became shorter while it was read");
    done += static_cast<size_t>(got);
  }
  return out;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::advise(size_t offset, size_t bytes, int advice) const {
  const auto [first, last] = whole_pages(offset, bytes, size_);
  // Advice: where a system does not take it, nothing is lost but memory or time.
  if (first < last) ::madvise(const_cast<uint8_t*>(data_ + first), last - first, advice);
}

void MappedFile::prefetch(size_t offset, size_t bytes) const {
  if (mapped_) advise(offset, bytes, MADV_WILLNEED);
}

void MappedFile::expect_random(size_t offset, size_t bytes) const {
  if (mapped_) advise(offset, bytes, MADV_RANDOM);
}

void MappedFile::release(size_t offset, size_t bytes) const {
  if (mapped_) advise(offset, bytes, MADV_DONTNEED);
}

void MappedFile::discard(size_t offset, size_t bytes) const {
  advise(offset, bytes, MADV_DONTNEED);
}

#endif

}  // namespace gemtp
