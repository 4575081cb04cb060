// What every function of the C ABI needs: exceptions become status codes, structs of other versions
// are read and written, pointers and counts are looked at before they are followed.
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

/// A call on a session that is in another one: GEMTP_ERROR_BUSY.
class BusyError : public Error {
 public:
  BusyError();
};

/// Of the exception that is being handled: its status, and its sentence to error.
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

/// Error{kArgument} "... is NULL".
void need(const void* pointer, const char* what);
/// For a count of items that lie at `pointer`; catches negative numbers that were cast.
void need_array(const void* pointer, size_t count, size_t item_bytes, const char* what);
/// The text that a pointer and a length, or GEMTP_STRLEN, mean.
std::string_view text_of(const char* text, size_t length, const char* what);
std::vector<int32_t> ids_of(const int32_t* ids, size_t count);
std::vector<std::string> strings_of(const char* const* strings, size_t count, const char* what);

/// At most `capacity` items, and their number.
void copy_out(const void* from, size_t n, size_t item_bytes, void* to, size_t capacity,
              size_t* count);
inline void copy_out(const std::vector<int32_t>& from, int32_t* to, size_t capacity,
                     size_t* count) {
  copy_out(from.data(), from.size(), sizeof(int32_t), to, capacity, count);
}

/// Error{kArgument} for the size of a struct that no version of the library can have had. A size
/// that is a multiple of 8 cuts no pointer in half.
void check_size(size_t given, size_t known, const char* type);
/// Error{kArgument} where the caller set what this library does not know.
void check_tail(const void* given, size_t given_size, size_t known, const char* type);

/// A caller's struct over the defaults.
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

/// Fills in a struct of `size` bytes of the caller's, who may know fewer fields or more.
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
