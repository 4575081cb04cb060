// A file whose bytes are read on demand. Nothing is mapped: if another process truncates the file,
// read() fails, whereas touching a mapping would kill this process with a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace gemtp {

class InputFile {
 public:
  /// Throws Error{kFile} if the file is missing, a directory, a pipe or a device, unreadable or
  /// empty.
  static std::unique_ptr<InputFile> open(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// The path as error sentences show it.
  const std::string& quoted_path() const { return quoted_path_; }
  uint64_t size() const { return stamp_.size; }

  /// Reads bytes [offset, offset + bytes); any number of threads may call it. Throws Error{kFile}
  /// if the file has become too short or the system cannot read it.
  void read(uint64_t offset, size_t bytes, void* to) const;

  /// Throws Error{kFile} if the file's length or modification time has changed since it was opened.
  /// If a call after read() does not throw, the bytes read are those of the opened file.
  void check_unchanged() const;

  // Hints to the system about how the file will be read. A system that ignores them only loses
  // time.

  /// The caller will soon read [offset, offset + bytes) sequentially.
  void prefetch(uint64_t offset, uint64_t bytes) const;
  /// From now on the caller reads small pieces far apart, so reading ahead is of no use.
  void expect_random() const;

 private:
  struct Stamp {
    uint64_t size = 0;
    int64_t seconds = 0, fraction = 0;  // time of the last change, in the system's units
    bool operator==(const Stamp&) const = default;
  };

  explicit InputFile(const std::string& path);
  [[noreturn]] void fail(const std::string& what) const;
  Stamp stamp() const;
  /// Makes one system call. Returns the number of bytes read, 0 at the end of the file.
  size_t read_some(uint64_t offset, size_t bytes, void* to) const;

  std::string quoted_path_;
  Stamp stamp_;  // at the time of opening
#ifdef _WIN32
  void* handle_ = nullptr;
#else
  int fd_ = -1;
#endif
};

}  // namespace gemtp
