// A file whose bytes are read when they are wanted. Nothing is mapped: a file that another process
// cuts short makes read() fail, where touching a mapping would end this process with a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace gemtp {

class InputFile {
 public:
  /// Error{kFile} when the file is missing, a directory, a pipe or a device, unreadable or empty.
  static std::unique_ptr<InputFile> open(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// As error sentences show it.
  const std::string& quoted_path() const { return quoted_path_; }
  uint64_t size() const { return stamp_.size; }

  /// Bytes [offset, offset + bytes), from any number of threads. Error{kFile} when the file has
  /// become too short for them or the system cannot read them.
  void read(uint64_t offset, size_t bytes, void* to) const;

  /// Error{kFile} when the file has another length or time of change than when it was opened.
  /// After a read(): what it gave is what the file held then.
  void check_unchanged() const;

  // How the file will be read. Advice: where a system does not take it, only time is lost.

  /// [offset, offset + bytes) soon, from end to end.
  void prefetch(uint64_t offset, uint64_t bytes) const;
  /// From now on a little at a time, far apart: without reading ahead.
  void expect_random() const;

 private:
  struct Stamp {
    uint64_t size = 0;
    int64_t seconds = 0, fraction = 0;  // of the last change, in the system's units
    bool operator==(const Stamp&) const = default;
  };

  explicit InputFile(const std::string& path);
  [[noreturn]] void fail(const std::string& what) const;
  Stamp stamp() const;
  /// Of one call of the system: how many bytes it gave, 0 at the end of the file.
  size_t read_some(uint64_t offset, size_t bytes, void* to) const;

  std::string quoted_path_;
  Stamp stamp_;  // when it was opened
#ifdef _WIN32
  void* handle_ = nullptr;
#else
  int fd_ = -1;
#endif
};

}  // namespace gemtp
