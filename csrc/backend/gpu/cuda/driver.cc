#include "backend/gpu/cuda/driver.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "base/error.h"

namespace gemtp::gpu::cuda {
namespace {

// Drivers from March 2024 on (550 on Linux, 551 on Windows): older ones cannot read the kernels.
constexpr int kOldestCuda = 12040;

#ifdef _WIN32
constexpr const char* kLibrary = "nvcuda.dll";

void* open_library(const char* name, std::string& error) {
  const DWORD where = std::strcmp(name, kLibrary) == 0 ? LOAD_LIBRARY_SEARCH_SYSTEM32 : 0;
  void* library = reinterpret_cast<void*>(LoadLibraryExA(name, nullptr, where));
  if (!library) error = format("error %lu", GetLastError());
  return library;
}
void* find_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(reinterpret_cast<HMODULE>(library), name));
}

std::string file_of(void*) { return ""; }
#else
constexpr const char* kLibrary = "libcuda.so.1";

void* open_library(const char* name, std::string& error) {
  void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!library) error = dlerror();
  return library;
}
void* find_symbol(void* library, const char* name) { return dlsym(library, name); }

// Returns the name of the file, behind its links, that a function lies in; "" if it is unknown.
std::string file_of(void* function) {
  Dl_info found{};
  if (!dladdr(function, &found) || !found.dli_fname) return "";
  std::error_code error;
  return std::filesystem::canonical(found.dli_fname, error).filename().string();
}
#endif

std::string version_text(int version) {
  return format("%d.%d", version / 1000, version % 1000 / 10);
}

// The library stays loaded: it cannot be unloaded safely, and holds what its threads use.
std::unique_ptr<Driver> load() {
  const char* name = std::getenv("GEMTP_CUDA_DRIVER");
  if (!name || !*name) name = kLibrary;
  std::string error;
  void* library = open_library(name, error);
  if (!library)
    throw Error(
        ErrorKind::kArgument,
        format("no driver for CUDA is here (%s); install NVIDIA's driver, or use the device "
               "cpu",
               quoted(error, 200).c_str()));
  auto d = std::make_unique<Driver>();
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* symbol) {
    function =
        reinterpret_cast<std::remove_reference_t<decltype(function)>>(find_symbol(library, symbol));
    if (!function) missing = symbol;
  };
#define X(member, symbol, parameters) find(d->member, #symbol);
  GEMTP_CUDA_FUNCTIONS(X)
#undef X
  if (d->version) d->version(&d->cuda_version);
  d->file = file_of(reinterpret_cast<void*>(d->version));
  if (missing || d->cuda_version < kOldestCuda)
    throw Error(ErrorKind::kDevice,
                format("NVIDIA's driver is too old: it supports CUDA %s%s%s, and %s is needed; "
                       "update it, or use the device cpu",
                       version_text(d->cuda_version).c_str(), missing ? " without " : "",
                       missing ? missing : "", version_text(kOldestCuda).c_str()));
  const Result result = d->init(0);
  if (result == kNoDevice)
    throw Error(ErrorKind::kArgument,
                "NVIDIA's driver finds no GPU that CUDA can use (CUDA_VISIBLE_DEVICES may hide "
                "some); use the device cpu");
  if (result != kSuccess)
    throw Error(ErrorKind::kDevice,
                format("NVIDIA's driver does not work: cuInit gives %s; restart the machine or "
                       "install the driver again, or use the device cpu",
                       d->describe(result).c_str()));
  return d;
}

}  // namespace

std::string Driver::describe(Result error) const {
  const char *name = nullptr, *text = nullptr;
  if (error_name(error, &name) != kSuccess || !name) return format("error %d", error);
  if (error_text(error, &text) != kSuccess || !text) return name;
  return format("%s (%s)", name, text);
}

const Driver& driver() {
  static std::mutex mutex;
  static std::unique_ptr<Driver> loaded;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!loaded) loaded = load();
  return *loaded;
}

}  // namespace gemtp::gpu::cuda
