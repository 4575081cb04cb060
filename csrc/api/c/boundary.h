// Helpers for every function of the C ABI: they turn exceptions into status codes, read and write
// structs of other versions, and check pointers and counts before use.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "gemtp.h"

namespace gemtp {

/// Thrown by a call on a session that is in another call; becomes GEMTP_ERROR_BUSY.
class BusyError : public Error {
 public:
  BusyError();
};

/// Returns the status of the exception that is being handled and writes its sentence to error.
gemtp_status status_of_exception(char* error, size_t error_size) noexcept;

/// Runs fn and translates whatever it throws.
template <class Fn>
gemtp_status guarded(char* error, size_t error_size, const Fn& fn) noexcept {
  try {
    fn();
    return GEMTP_OK;
  } catch (...) {
    return status_of_exception(error, error_size);
  }
}

/// Throws Error{kArgument} "... is NULL" if the pointer is null.
void need(const void* pointer, const char* what);
/// Checks a pointer to `count` items; also rejects counts that were negative before a cast.
void need_array(const void* pointer, size_t count, size_t item_bytes, const char* what);
/// The text given by a pointer and a length or GEMTP_STRLEN.
std::string_view text_of(const char* text, size_t length, const char* what);
std::vector<int32_t> ids_of(const int32_t* ids, size_t count);
std::vector<std::string> strings_of(const char* const* strings, size_t count, const char* what);

/// Writes at most `capacity` items to `to` and the total number to `count`.
void copy_out(const void* from, size_t n, size_t item_bytes, void* to, size_t capacity,
              size_t* count);
inline void copy_out(const std::vector<int32_t>& from, int32_t* to, size_t capacity,
                     size_t* count) {
  copy_out(from.data(), from.size(), sizeof(int32_t), to, capacity, count);
}

/// Throws Error{kArgument} for a size that the struct cannot have had in any version of the
/// library. Sizes are multiples of 8, so they never cut a pointer in half.
void check_size(size_t given, size_t known, const char* type);
/// Throws Error{kArgument} if the caller has set a field that this library does not know.
void check_tail(const void* given, size_t given_size, size_t known, const char* type);

/// Returns the caller's struct, with defaults for the fields that it does not have.
template <class Struct>
Struct complete(const void* given, size_t size, Struct defaults, const char* type) {
  check_size(size, sizeof(Struct), type);
  check_tail(given, size, sizeof(Struct), type);
  std::memcpy(&defaults, given, std::min(size, sizeof(Struct)));
  return defaults;
}
template <class Struct>
Struct complete(const Struct* given, const Struct& defaults, const char* type) {
  return given ? complete(given, given->size, defaults, type) : defaults;
}

/// Fills in a caller's struct of `size` bytes, which may have fewer or more fields.
template <class Struct>
void fill(const Struct& from, Struct* to, size_t size, const char* type) {
  need(to, type);
  check_size(size, sizeof(Struct), type);
  std::memset(static_cast<void*>(to), 0, size);
  std::memcpy(static_cast<void*>(to), &from, std::min(size, sizeof(Struct)));
  to->size = size;
}
template <class Struct>
void fill(const Struct& from, Struct* to, const char* type) {
  need(to, type);
  fill(from, to, to->size, type);
}

}  // namespace gemtp
