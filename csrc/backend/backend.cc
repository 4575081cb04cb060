#include "backend/backend.h"

#include "base/error.h"

namespace gemtp {

void Backend::embed_best(const Matrix&, float, Device<const float>, int64_t, Device<const int32_t>,
                         Device<int32_t>, Device<float>) {
  GEMTP_ASSERT(false);
}

void Backend::observe_product(const Matrix& w, Device<const float> x, int64_t stride, int64_t m) {
  if (w.source.name.empty()) return;
  std::vector<float> rows(static_cast<size_t>((m - 1) * stride + w.cols));
  read(x, static_cast<int64_t>(rows.size()), rows.data());
  observer_(w.source, rows.data(), stride, m);
}

}  // namespace gemtp
