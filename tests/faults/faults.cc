// A library for LD_PRELOAD: chosen calls of the C library and of operator new fail, in whatever
// calls them, Python included. tests/faults/run.py loads it. It is for tests on Linux alone.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

enum Kind {
  kMemory,
  kMap,
  kOpen,
  kStatus,
  kRead,
  kWrite,
  kSync,
  kClose,
  kRename,
  kThread,
  kProcess
};

constexpr int kShort = -1;  // instead of an error: half of what was to be read or written

struct Plan {
  std::atomic<int> kind{-1};
  std::atomic<int64_t> left{0};  // until the call that fails
  std::atomic<int> error{0};
  std::atomic<bool> all_from_there{false};
};
Plan plan;

bool fails(Kind kind) {
  if (plan.kind.load(std::memory_order_acquire) != kind) return false;
  const int64_t now = plan.left.fetch_sub(1) - 1;
  if (now != 0 && !(now < 0 && plan.all_from_there)) return false;
  errno = plan.error;
  return true;
}

// The next function of this name: the one that programs would call without this library.
template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
#define NEXT(name) static auto* const real = next<decltype(name)>(#name)

// Half of what was asked for, where a call is to be short; else all.
size_t asked(Kind kind, size_t n, bool* failed) {
  *failed = fails(kind);
  if (!*failed || plan.error != kShort) return n;
  *failed = false;
  return n > 1 ? n / 2 : n;
}

void* allocate(size_t n, size_t alignment) {
  if (fails(kMemory)) return nullptr;
  if (n == 0) n = 1;
  if (alignment <= alignof(std::max_align_t)) return std::malloc(n);
  return std::aligned_alloc(alignment, (n + alignment - 1) / alignment * alignment);
}

void* allocate_or_throw(size_t n, size_t alignment) {
  if (void* p = allocate(n, alignment)) return p;
  throw std::bad_alloc();
}

// Whether the interpreter itself calls: it maps memory for what it allocates, which is another kind
// of failure (Python's allocator, which run.py lets fail).
bool of_python(const void* caller) {
  Dl_info info;
  if (!dladdr(caller, &info) || !info.dli_fname) return false;
  const char* slash = std::strrchr(info.dli_fname, '/');
  const char* name = slash ? slash + 1 : info.dli_fname;
  return std::strncmp(name, "python", 6) == 0 || std::strncmp(name, "libpython", 9) == 0;
}

mode_t mode_of(int flags, va_list arguments) {
  return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

}  // namespace

extern "C" {

/// From now on the n-th call of a kind (of enum Kind, n from 1) fails with an error of errno, or is
/// short; with all_from_there all that come after it do, too.
void gemtp_faults_arm(int kind, int64_t n, int error, int all_from_there) {
  plan.kind = -1;
  plan.left = n;
  plan.error = error;
  plan.all_from_there = all_from_there != 0;
  plan.kind = kind;
}

/// Nothing fails any more. Returns how many calls less were made than were to be before the
/// failure: not positive if there was one.
int64_t gemtp_faults_disarm() {
  plan.kind = -1;
  return plan.left;
}

#define MAP(name, offset_type)                                                                     \
  void* name(void* at, size_t n, int protection, int flags, int fd, offset_type offset) noexcept { \
    NEXT(name);                                                                                    \
    const bool failed = !of_python(__builtin_return_address(0)) && fails(kMap);                    \
    return failed ? MAP_FAILED : real(at, n, protection, flags, fd, offset);                       \
  }
MAP(mmap, off_t)
MAP(mmap64, off64_t)

#define OPEN(name)                                      \
  int name(const char* path, int flags, ...) {          \
    NEXT(name);                                         \
    va_list arguments;                                  \
    va_start(arguments, flags);                         \
    const mode_t mode = mode_of(flags, arguments);      \
    va_end(arguments);                                  \
    return fails(kOpen) ? -1 : real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
#define OPEN_AT(name)                                           \
  int name(int folder, const char* path, int flags, ...) {      \
    NEXT(name);                                                 \
    va_list arguments;                                          \
    va_start(arguments, flags);                                 \
    const mode_t mode = mode_of(flags, arguments);              \
    va_end(arguments);                                          \
    return fails(kOpen) ? -1 : real(folder, path, flags, mode); \
  }
OPEN_AT(openat)
OPEN_AT(openat64)
std::FILE* fopen(const char* path, const char* mode) {
  NEXT(fopen);
  return fails(kOpen) ? nullptr : real(path, mode);
}
std::FILE* fopen64(const char* path, const char* mode) {
  NEXT(fopen64);
  return fails(kOpen) ? nullptr : real(path, mode);
}
std::FILE* fdopen(int fd, const char* mode) noexcept {
  NEXT(fdopen);
  return fails(kOpen) ? nullptr : real(fd, mode);
}

#define STATUS(name, type)                                   \
  int name(const char* path, struct type* status) noexcept { \
    NEXT(name);                                              \
    return fails(kStatus) ? -1 : real(path, status);         \
  }
STATUS(stat, stat)
STATUS(lstat, stat)
STATUS(stat64, stat64)
STATUS(lstat64, stat64)
#define STATUS_OF_FD(name, type)                   \
  int name(int fd, struct type* status) noexcept { \
    NEXT(name);                                    \
    return fails(kStatus) ? -1 : real(fd, status); \
  }
STATUS_OF_FD(fstat, stat)
STATUS_OF_FD(fstat64, stat64)

ssize_t read(int fd, void* to, size_t n) {
  NEXT(read);
  bool failed;
  n = asked(kRead, n, &failed);
  return failed ? -1 : real(fd, to, n);
}
ssize_t pread(int fd, void* to, size_t n, off_t offset) {
  NEXT(pread);
  bool failed;
  n = asked(kRead, n, &failed);
  return failed ? -1 : real(fd, to, n, offset);
}
ssize_t pread64(int fd, void* to, size_t n, off64_t offset) { return pread(fd, to, n, offset); }
size_t fread(void* to, size_t size, size_t n, std::FILE* file) {
  NEXT(fread);  // which is short only at the end of a file
  return plan.error != kShort && fails(kRead) ? 0 : real(to, size, n, file);
}

ssize_t write(int fd, const void* from, size_t n) {
  NEXT(write);
  bool failed;
  n = asked(kWrite, n, &failed);
  return failed ? -1 : real(fd, from, n);
}
size_t fwrite(const void* from, size_t size, size_t n, std::FILE* file) {
  NEXT(fwrite);  // which is short only where it fails
  return plan.error != kShort && fails(kWrite) ? 0 : real(from, size, n, file);
}
int fflush(std::FILE* file) {
  NEXT(fflush);
  return plan.error != kShort && fails(kWrite) ? EOF : real(file);
}
int ftruncate(int fd, off_t size) noexcept {
  NEXT(ftruncate);
  return plan.error != kShort && fails(kWrite) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off64_t size) noexcept { return ftruncate(fd, size); }

int fsync(int fd) {
  NEXT(fsync);
  return fails(kSync) ? -1 : real(fd);
}
// What fails to be closed is closed, as on Linux.
int close(int fd) {
  NEXT(close);
  const bool failed = fails(kClose);
  const int error = errno, status = real(fd);
  errno = failed ? error : errno;
  return failed ? -1 : status;
}
int fclose(std::FILE* file) {
  NEXT(fclose);
  const bool failed = fails(kClose);
  const int error = errno, status = real(file);
  errno = failed ? error : errno;
  return failed ? EOF : status;
}

int rename(const char* from, const char* to) noexcept {
  NEXT(rename);
  return fails(kRename) ? -1 : real(from, to);
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  NEXT(renameat);
  return fails(kRename) ? -1 : real(from_folder, from, to_folder, to);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                   void* argument) noexcept {
  NEXT(pthread_create);
  return fails(kThread) ? EAGAIN : real(thread, attributes, run, argument);
}

pid_t fork() noexcept {
  NEXT(fork);
  return fails(kProcess) ? -1 : real();
}
int pipe2(int* ends, int flags) noexcept {
  NEXT(pipe2);
  return fails(kProcess) ? -1 : real(ends, flags);
}
int pipe(int* ends) noexcept { return pipe2(ends, 0); }

}  // extern "C"

void* operator new(size_t n) { return allocate_or_throw(n, 1); }
void* operator new[](size_t n) { return allocate_or_throw(n, 1); }
void* operator new(size_t n, std::align_val_t a) {
  return allocate_or_throw(n, static_cast<size_t>(a));
}
void* operator new[](size_t n, std::align_val_t a) {
  return allocate_or_throw(n, static_cast<size_t>(a));
}
void* operator new(size_t n, const std::nothrow_t&) noexcept { return allocate(n, 1); }
void* operator new[](size_t n, const std::nothrow_t&) noexcept { return allocate(n, 1); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }
