#include "measure/copy_bandwidth.h"

#include <algorithm>

#include "base/clock.h"

namespace gemtp {
namespace {

constexpr int64_t kFirst = 1 << 16, kMost = 64 << 20;  // floats of a buffer
constexpr double kWhile = 1e-3;                        // seconds, long beside those of a launch

}  // namespace

CopyBandwidth::CopyBandwidth(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {
  const auto free = static_cast<int64_t>(engine_->model().backend().available());  // 0: unknown
  const int64_t most = free ? std::clamp<int64_t>(free / 32, kFirst, kMost) : kMost;
  allocate(kFirst);
  while (floats_ < most && seconds() < kWhile) allocate(std::min(4 * floats_, most));
}

void CopyBandwidth::allocate(int64_t floats) {
  const OpenedModel::Exclusive exclusive(engine_->model());
  Backend& device = engine_->model().backend();
  from_ = Buffer();  // one at a time: the larger ones have their room
  to_ = Buffer();
  from_ = device.alloc(floats);
  to_ = device.alloc(floats);
  floats_ = floats;
}

double CopyBandwidth::sample() { return 2 * static_cast<double>(bytes()) / seconds(); }

double CopyBandwidth::seconds() {
  const OpenedModel::Exclusive exclusive(engine_->model());
  Backend& device = engine_->model().backend();
  const double start = monotonic_seconds();
  device.copy(from_.get(), floats_, to_.get());
  device.wait();
  return monotonic_seconds() - start;
}

}  // namespace gemtp
