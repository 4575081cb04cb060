// The self-test of a GPU: an exact one passes, and wrong bytes of any kernel are noticed.
#include "engine/self_test.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "backend/gpu/emulated/kernels.h"
#include "backend/gpu/format_names.h"
#include "backend/gpu/gpu_backend.h"
#include "base/error.h"

namespace {

using namespace gemtp;

std::unique_ptr<Backend> emulated(const std::string& fault) {
  gpu::EmulatedOptions options;
  options.fault = fault;
  return make_gpu_backend(gpu::make_emulated_device(options), make_cpu_backend(1, "scalar"));
}

// What the self-test says of a device with a fault; "" if it is exact.
std::string said_of(const std::string& fault, const std::set<TestedKernels>& kernels) {
  try {
    self_test(*emulated(fault), kernels, [] {});
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::kDevice);
    return e.what();
  }
  return "";
}

// Kernels of the formats' matrices and the type of K/V, and those that have neither.
std::vector<std::string> kernels_of(const TestedKernels& k, bool common) {
  const std::string format = gpu::kFormatNames[k.format], kv = k.kv_f16 ? "f16" : "f32";
  std::vector<std::string> out;
  for (const char* panel : {"1", "2", "4", "8", "16"})
    for (const char* end : {"", "_gated", "_factor"})
      out.push_back("matmul_" + format + "_" + panel + end);
  out.push_back("matmul_" + format + "_many");
  out.push_back("embed_" + format);
  if (!common) return out;
  out.push_back("heads_" + kv);
  for (const char* tile : {"_2", "_8"})
    for (const char* part : {"attention_scores_", "attention_values_"})
      out.push_back(part + kv + tile);
  for (const char* other :
       {"quantize", "norm", "copy", "gelu_mul", "softcap", "gather", "weighted_sum", "head_softcap",
        "best_of_parts", "top_clusters", "sort_candidates", "route"})
    out.push_back(other);
  return out;
}

// Kernels that are not launched for a format, as no model needs them.
bool unused(const std::string& kernel, const TestedKernels& k) {
  return kernel == "embed_mxfp4" || (kernel == "quantize" && k.format <= GEMTP_BF16);
}

void check_faults(const TestedKernels& k, bool common) {
  CAPTURE(k.name());
  CHECK(said_of("", {k}) == "");
  for (const std::string& kernel : kernels_of(k, common)) {
    if (!gpu::find_kernel(kernel) || unused(kernel, k)) continue;
    CAPTURE(kernel);
    const std::string said = said_of(kernel, {k});
    CHECK(said.starts_with("emulated (with a fault in " + kernel +
                           ") does not compute what the CPU computes"));
    CHECK(said.find("kernels for " + k.name()) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("gpu self-test: wrong bytes of any kernel are noticed") {
  check_faults({GEMTP_Q4_0, true}, true);
}

TEST_SUITE("long") {
  TEST_CASE("gpu self-test: wrong bytes of any kernel of any format are noticed") {
    check_faults({GEMTP_F32, false}, true);
    for (const TestedKernels& k : all_kernels()) check_faults(k, false);
  }
}
