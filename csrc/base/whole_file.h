// A file that appears complete or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace gemtp {

/// Converts a path in UTF-8 (POSIX: any bytes) to the system's form. Throws Error{kFile} if it is
/// not valid.
std::filesystem::path system_path(const std::string& path);

/// A file that is written under a temporary name beside `path` and renamed to `path` when it is
/// complete. Only its owner may read it. If `path` is a link, the file it points to is replaced or
/// created.
class WholeFile {
 public:
  /// Throws Error{kFile} if `path` is a folder, pipe or device, or cannot be written.
  explicit WholeFile(const std::string& path);
  /// Removes an incomplete file.
  ~WholeFile();
  WholeFile(const WholeFile&) = delete;
  WholeFile& operator=(const WholeFile&) = delete;

  /// Throws Error{kFile}, e.g. if the disk is full.
  void write(const void* data, size_t n);
  /// Renames the file to `path` and syncs it to the disk. If it throws Error{kFile}, an existing
  /// file is unchanged.
  void complete();

 private:
  [[noreturn]] void fail() const;

  std::string path_;
  std::filesystem::path destination_, temporary_;
  int fd_ = -1;
};

}  // namespace gemtp
