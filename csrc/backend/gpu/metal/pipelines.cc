#include "backend/gpu/metal/pipelines.h"

#include <utility>

#include "backend/gpu/metal/kernel_source.h"
#include "base/error.h"

namespace gemtp::gpu::metal {

Pipelines::Pipelines(Id device, std::string where) : device_(device), where_(std::move(where)) {
  for (const KernelEntry& e : kernel_entries())
    kernels_.emplace(e.name, Pipeline{Owned(), e.threads, e.argument_bytes});
}

const Pipeline& Pipelines::of(const std::string& kernel) {
  Pipeline& found = kernels_.at(kernel);
  if (!found.state) found.state = compile(kernel, found.threads);
  return found;
}

void Pipelines::abandon() {
  for (auto& [name, kernel] : kernels_) kernel.state.abandon();
  for (auto& [module, library] : libraries_) library.abandon();
}

Owned Pipelines::compile(const std::string& kernel, int threads) {
  const Owned function(
      r_.new_function(library_of(module_of(kernel)), r_.string_of("gemtp_" + kernel)));
  if (!function) refuse(kernel, "there is no such function");
  Id error = nullptr;
  Owned made(r_.new_pipeline(device_, function, &error));
  if (!made) refuse(kernel, r_.text_of_error(error));
  const auto lanes = static_cast<int>(r_.lanes(made));
  const auto most = static_cast<int>(r_.most_threads(made));
  if (lanes != 32 || most < threads)
    refuse(kernel,
           format("%d lanes and %d threads are given, 32 and %d are needed", lanes, most, threads));
  return made;
}

Id Pipelines::library_of(const std::string& module) {
  Owned& library = libraries_[module];
  if (library) return library;
  const Owned options(r_.make(r_.find_class("MTLCompileOptions")));
  r_.set_language(options, kLanguage31);
  if (r_.responds(options, r_.set_math.selector)) {  // since macOS 15
    r_.set_math(options, kMathSafe);
    r_.set_functions(options, kPreciseFunctions);
  } else {
    r_.set_fast_math(options, false);
  }
  Id error = nullptr;
  library = Owned(r_.new_library(device_, r_.string_of(source_of(module)), options, &error));
  if (!library) refuse(module, r_.text_of_error(error));
  return library;
}

void Pipelines::refuse(const std::string& what, const std::string& why) const {
  throw Error(ErrorKind::kDevice,
              format("%s does not take the kernels of gemtp (%s: %s); please report it, and use "
                     "the device cpu",
                     where_.c_str(), what.c_str(), quoted(why, 200).c_str()));
}

}  // namespace gemtp::gpu::metal
