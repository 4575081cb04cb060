// The memory bandwidth of a device with memory of its own: how fast it copies.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/backend.h"
#include "engine/engine.h"

namespace gemtp {

class CopyBandwidth {
 public:
  /// Allocates two buffers on the engine's device: so large that a copy takes a while, but at most
  /// 256 MB, which no cache holds, and an eighth of the free memory. Throws like a pass.
  explicit CopyBandwidth(std::shared_ptr<Engine> engine);

  /// Bytes that a copy reads and writes, per second.
  double sample();
  /// Of each buffer.
  int64_t bytes() const { return floats_ * static_cast<int64_t>(sizeof(float)); }

 private:
  void allocate(int64_t floats);
  double seconds();

  const std::shared_ptr<Engine> engine_;
  int64_t floats_ = 0;
  Buffer from_, to_;
};

}  // namespace gemtp
