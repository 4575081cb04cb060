#include "api/c/boundary.h"

#include <exception>
#include <new>
#include <stdexcept>

namespace gemtp {
namespace {

gemtp_status status_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kFile:
      return GEMTP_ERROR_FILE;
    case ErrorKind::kModel:
      return GEMTP_ERROR_MODEL;
    case ErrorKind::kArgument:
      return GEMTP_ERROR_ARGUMENT;
    case ErrorKind::kContext:
      return GEMTP_ERROR_CONTEXT;
    case ErrorKind::kCancelled:
      return GEMTP_ERROR_CANCELLED;
    case ErrorKind::kMemory:
      return GEMTP_ERROR_MEMORY;
    case ErrorKind::kDevice:
      return GEMTP_ERROR_DEVICE;
    case ErrorKind::kInternal:
      return GEMTP_ERROR_INTERNAL;
  }
  return GEMTP_ERROR_INTERNAL;
}

// Writes the message, truncated to fit at a character boundary.
void write_error(const char* message, char* error, size_t size) {
  if (!error || size == 0) return;
  size_t n = std::strlen(message);
  if (n > size - 1) {
    n = size - 1;
    while (n > 0 && (static_cast<unsigned char>(message[n]) & 0xC0) == 0x80) --n;
  }
  std::memcpy(error, message, n);
  error[n] = 0;
}

}  // namespace

BusyError::BusyError()
    : Error(ErrorKind::kArgument,
            "the session is in another call; wait until it returns, or stop it by "
            "gemtp_session_cancel()") {}

gemtp_status status_of_exception(char* error, size_t error_size) noexcept {
  try {
    throw;
  } catch (const BusyError& e) {
    write_error(e.what(), error, error_size);
    return GEMTP_ERROR_BUSY;
  } catch (const Error& e) {
    write_error(e.what(), error, error_size);
    return status_of(e.kind());
  } catch (const std::bad_alloc&) {
    write_error("not enough memory; use a smaller context or a smaller model", error, error_size);
    return GEMTP_ERROR_MEMORY;
  } catch (const std::exception& e) {
    write_error(e.what(), error, error_size);
    return GEMTP_ERROR_INTERNAL;
  } catch (...) {
    write_error("a callback threw an exception", error, error_size);
    return GEMTP_ERROR_INTERNAL;
  }
}

void need(const void* pointer, const char* what) {
  if (!pointer) throw Error(ErrorKind::kArgument, std::string(what) + " is NULL");
}

void need_array(const void* pointer, size_t count, size_t item_bytes, const char* what) {
  if (count > PTRDIFF_MAX / item_bytes)
    throw Error(ErrorKind::kArgument,
                format("the number of %s is %zu; no memory holds so many", what, count));
  if (count) need(pointer, what);
}

std::string_view text_of(const char* text, size_t length, const char* what) {
  if (length == GEMTP_STRLEN) {
    need(text, what);
    return text;
  }
  need_array(text, length, 1, what);
  return {text, length};
}

std::vector<int32_t> ids_of(const int32_t* ids, size_t count) {
  need_array(ids, count, sizeof *ids, "ids");
  return count ? std::vector<int32_t>(ids, ids + count) : std::vector<int32_t>();
}

std::vector<std::string> strings_of(const char* const* strings, size_t count, const char* what) {
  need_array(strings, count, sizeof *strings, what);
  std::vector<std::string> out;
  for (size_t i = 0; i < count; ++i) {
    if (!strings[i]) throw Error(ErrorKind::kArgument, format("%s[%zu] is NULL", what, i));
    out.emplace_back(strings[i]);
  }
  return out;
}

void copy_out(const void* from, size_t n, size_t item_bytes, void* to, size_t capacity,
              size_t* count) {
  need(count, "the pointer for the number of items");
  need_array(to, capacity, item_bytes, "the output buffer");
  if (const size_t written = std::min(n, capacity)) std::memcpy(to, from, written * item_bytes);
  *count = n;
}

void check_size(size_t given, size_t known, const char* type) {
  constexpr size_t kLargest = 4096;
  if (given != known && (given == 0 || given % 8 != 0 || given > kLargest))
    throw Error(ErrorKind::kArgument,
                format("the size of %s is %zu, which it has in no version; set it to sizeof, or "
                       "by the init function",
                       type, given));
}

void check_tail(const void* given, size_t given_size, size_t known, const char* type) {
  const auto* bytes = static_cast<const unsigned char*>(given);
  for (size_t i = known; i < given_size; ++i)
    if (bytes[i])
      throw Error(ErrorKind::kArgument,
                  format("%s has a field set that this version of the library (%s) does not know; "
                         "leave it out or use a newer library",
                         type, gemtp_version()));
}

}  // namespace gemtp
