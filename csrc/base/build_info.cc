#include "base/build_info.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include <filesystem>
#include <system_error>

#include "base/error.h"

namespace gemtp {
namespace {

// The library or program that holds this code.
std::filesystem::path own_file() {
  const void* here = reinterpret_cast<const void*>(&own_file);
#ifdef _WIN32
  HMODULE module = nullptr;
  wchar_t path[4096];
  if (!GetModuleHandleExW(
          GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
          static_cast<const wchar_t*>(here), &module))
    return {};
  const DWORD n = GetModuleFileNameW(module, path, 4096);
  return n > 0 && n < 4096 ? std::filesystem::path(path, path + n) : std::filesystem::path();
#else
  Dl_info info;
  return dladdr(here, &info) && info.dli_fname ? info.dli_fname : "";
#endif
}

}  // namespace

const char* version() { return GEMTP_VERSION; }

const char* compiler() {
#define GEMTP_QUOTE(x) #x
#define GEMTP_EXPAND(x) GEMTP_QUOTE(x)
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#elif defined(_MSC_FULL_VER)
  return "MSVC " GEMTP_EXPAND(_MSC_FULL_VER);
#else
  return "an unknown compiler";
#endif
#undef GEMTP_EXPAND
#undef GEMTP_QUOTE
}

std::string build_identity() {
  std::error_code error;
  const std::filesystem::path file = own_file();
  const auto time = std::filesystem::last_write_time(file, error);
  const auto size = error ? 0 : std::filesystem::file_size(file, error);
  if (error) return "";
  return format("%s, %llu bytes of %lld", version(), static_cast<unsigned long long>(size),
                static_cast<long long>(time.time_since_epoch().count()));
}

}  // namespace gemtp
