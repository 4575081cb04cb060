#include "backend/gpu/metal/runtime.h"

#include <dlfcn.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "base/error.h"

namespace gemtp::gpu::metal {
namespace {

constexpr const char* kLibraries[] = {
    "/usr/lib/libobjc.A.dylib",
    "/System/Library/Frameworks/Foundation.framework/Foundation",
    "/System/Library/Frameworks/Metal.framework/Metal",
};

[[noreturn]] void throw_missing(const std::string& why) {
  throw Error(ErrorKind::kArgument,
              format("Metal is not here (%s); it is part of macOS, on Apple's own chips; use the "
                     "device cpu",
                     quoted(why, 200).c_str()));
}

std::vector<void*> open_libraries() {
  std::vector<const char*> names(std::begin(kLibraries), std::end(kLibraries));
  const char* stand_in = std::getenv("GEMTP_METAL_RUNTIME");
  if (stand_in && *stand_in) names = {stand_in};
  std::vector<void*> out;
  for (const char* name : names) {
    out.push_back(dlopen(name, RTLD_NOW | RTLD_LOCAL));
    if (!out.back()) throw_missing(dlerror());
  }
  return out;
}

std::unique_ptr<Runtime> load() {
  const std::vector<void*> libraries = open_libraries();
  const auto find = [&](const char* symbol) {
    for (void* library : libraries)
      if (void* found = dlsym(library, symbol)) return found;
    throw_missing(std::string("without ") + symbol);
  };
  auto r = std::make_unique<Runtime>();
#define X(member, symbol, result, parameters) \
  r->member = reinterpret_cast<decltype(r->member)>(find(#symbol));
  GEMTP_METAL_FUNCTIONS(X)
#undef X
#define X(member, name, result, parameters) r->member = {r->send, r->selector(name)};
  GEMTP_METAL_MESSAGES(X)
#undef X
  return r;
}

}  // namespace

std::string Runtime::text_of(Id string) const {
  const char* found = string ? text(string) : nullptr;
  return found ? found : "";
}

std::string Runtime::text_of_error(Id error) const { return text_of(description(error)); }

Id Runtime::string_of(const std::string& text) const {
  return string(find_class("NSString"), text.c_str());
}

const Runtime& runtime() {
  static std::mutex mutex;
  static std::unique_ptr<Runtime> loaded;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!loaded) loaded = load();
  return *loaded;
}

}  // namespace gemtp::gpu::metal
