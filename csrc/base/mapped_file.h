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

  /// Tells the system that [offset, offset + bytes) will not be read again soon, so that a mapping
  /// gives its pages back. No effect on a copy.
  void release(size_t offset, size_t bytes) const;

 private:
  MappedFile() = default;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
  std::unique_ptr<uint8_t[]> copy_;
  [[maybe_unused]] void* handle_ = nullptr;  // Windows: the mapping object
};

}  // namespace gemtp
