// A file that appears whole or not at all.
#pragma once

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <string>

namespace gemtp {

/// As the system has it, of a path in UTF-8 (POSIX: of any bytes). Error{kFile} for what is none.
std::filesystem::path system_path(const std::string& path);

/// Opens a regular file to be read, and waits for no pipe. The caller closes it. Error{kFile}.
std::FILE* open_regular(const std::string& path);

/// Is written under a name of its own beside `path`, which it takes when it is complete. It is its
/// owner's alone to read. A link is followed: the file it leads to is replaced, or comes to be.
class WholeFile {
 public:
  /// Error{kFile} for a folder, pipe or device, and where no file can be written.
  explicit WholeFile(const std::string& path);
  /// Removes what is not complete.
  ~WholeFile();
  WholeFile(const WholeFile&) = delete;
  WholeFile& operator=(const WholeFile&) = delete;

  /// Error{kFile}, as for a disk that is full.
  void write(const void* data, size_t n);
  /// Puts it in its place, and on the disk. Error{kFile}: what was there before still is.
  void complete();

 private:
  [[noreturn]] void fail() const;

  std::string path_;
  std::filesystem::path destination_, temporary_;
  std::FILE* file_ = nullptr;
};

}  // namespace gemtp
