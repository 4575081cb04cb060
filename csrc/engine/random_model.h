// Small models with random weights, made in memory: what a GPU is tested with.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cpu/kernels.h"
#include "model/config.h"
#include "model/split.h"
#include "model/weights.h"

namespace gemtp {

/// A model with everything that Gemma 4's have, made from the same bytes on every storage. All of
/// its matrices have one packed format, but for the router of experts.
struct RandomModel {
  /// dense(): like E2B, with per-layer inputs and layers that share K/V. experts(): like 26B-A4B,
  /// with keys that are the values of full layers.
  static RandomModel dense(gemtp_format format, Split<Storage> storages);
  static RandomModel experts(gemtp_format format, Split<Storage> storages);
  /// A drafter for dense(), with an ordered head.
  static RandomModel drafter(gemtp_format format, Storage& storage);

  Config config;
  Weights weights;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> sources;  // the tables are read from them
};

}  // namespace gemtp
