// Read-only bytes of a file: a memory mapping (POSIX mmap / Windows file mapping) or a copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace gemtp {

class MappedFile {
 public:
  /// Error{kFile} when the file is missing, a directory, unreadable or empty.
  static std::unique_ptr<MappedFile> open(const std::string& path, bool mmap);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  bool mapped() const { return mapped_; }

  // How [offset, offset + bytes) will be used. Only whole pages inside the range are affected, so
  // its neighbours may still be in use.

  /// Soon, from end to end.
  void prefetch(size_t offset, size_t bytes) const;
  /// A little at a time, far apart: without reading ahead.
  void expect_random(size_t offset, size_t bytes) const;
  /// Not soon: a mapping gives its pages back and reads them again when asked. A copy keeps them.
  void release(size_t offset, size_t bytes) const;
  /// Never again: a copy gives its memory back too, and what is read there afterwards is arbitrary.
  void discard(size_t offset, size_t bytes) const;

 private:
  MappedFile() = default;
  void advise(size_t offset, size_t bytes, int advice) const;

  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
  [[maybe_unused]] void* handle_ = nullptr;  // Windows: the mapping object
};

}  // namespace gemtp
