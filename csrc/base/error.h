// The one exception type of the core. Every mistake that a user can make (file, flag, argument,
// request) is thrown as an Error whose message is one sentence: what is wrong, where, and what to
// do about it. Broken invariants of our own code are GEMTP_ASSERTs.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace gemtp {

enum class ErrorKind {
  kFile,       // a file that cannot be read or is not what it claims to be
  kModel,      // files that are sound but do not fit together, or that this build cannot run
  kArgument,   // a parameter outside its domain
  kContext,    // more tokens than the context holds
  kCancelled,  // stopped by the caller
  kMemory,     // more memory than this process may use
  kDevice,     // a GPU, or its driver, that fails or is too old
  kInternal,   // a broken invariant of our own code
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

/// Formats like printf into a std::string, for error sentences.
std::string format(const char* fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2)))
#endif
    ;

/// Renders untrusted text (names from files, paths) so that it is safe inside a sentence: in single
/// quotes, with control bytes and invalid UTF-8 as \xNN, and cut to `max_bytes` with an ellipsis.
std::string quoted(const std::string& untrusted, size_t max_bytes = 60);

[[noreturn]] void assert_failed(const char* expression, const char* file, int line);

}  // namespace gemtp

// For our own mistakes only; throws ErrorKind::kInternal rather than taking the host process down.
#define GEMTP_ASSERT(e) ((e) ? (void)0 : ::gemtp::assert_failed(#e, __FILE__, __LINE__))
