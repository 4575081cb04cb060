#include "engine/options.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "draft/costs.h"

namespace gemtp {

void EngineOptions::check() const {
  const auto need = [](const char* name, int64_t v, int64_t low, int64_t high) {
    if (v < low || v > high)
      throw Error(
          ErrorKind::kArgument,
          format("%s is %lld; it must be between %lld and %lld", name, static_cast<long long>(v),
                 static_cast<long long>(low), static_cast<long long>(high)));
  };
  need("threads", threads, 0, 1024);
  need("context", context, 2, int64_t{1} << 24);
  need("prefill_chunk", prefill_chunk, 1, 65536);
  need("kv_budget", kv_budget, 0, int64_t{1} << 50);
}

std::optional<int> select_gpu_layers(const std::string& text, int layers) {
  std::string given = text, origin = "gpu_layers";
  if (given.empty())
    if (const char* value = std::getenv("GEMTP_GPU_LAYERS")) {
      given = value;
      origin = "gpu_layers of GEMTP_GPU_LAYERS";
    }
  if (given.empty() || given == "auto") return std::nullopt;
  const bool number =
      given.size() <= 9 && given.find_first_not_of("0123456789") == std::string::npos;
  if (!number)
    throw Error(ErrorKind::kArgument, format("%s is %s; it must be auto or a number of layers",
                                             origin.c_str(), quoted(given).c_str()));
  return std::min(std::stoi(given), layers);
}

int64_t EngineOptions::max_rows() const {
  return std::max<int64_t>(prefill_chunk, CostModel::kMaxRows);
}

}  // namespace gemtp
