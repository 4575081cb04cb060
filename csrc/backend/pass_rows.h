// The rows of a pass: whose they are, where they stand, and what they attend to. It is all that
// differs between two passes of one shape, so operations read it in the backend's memory, where it
// is sent once a pass.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/device.h"

namespace gemtp {

class KvLayer;
class Storage;

/// The positions one query row attends to, both inclusive.
struct AttentionSpan {
  int64_t first = 0, last = 0;
};

/// Rotation angles of rows: cos and sin, [rows, half] each.
struct RopeAngles {
  RopeAngles() = default;
  RopeAngles(Storage& storage, int64_t rows, int64_t half);

  int64_t half = 0;  // of a head's width
  Mirror<float> cos, sin;
};

/// K/V of a sequence, layer by layer.
using KvLayers = std::span<const std::unique_ptr<KvLayer>>;

/// Of layers of one type.
struct RowsOfLayers {
  Mirror<AttentionSpan> spans;  // [rows]
  RopeAngles angles;
};

struct PassRows {
  /// half: widths of the rotated half of a head, of full and of sliding layers.
  PassRows(Storage& storage, int64_t rows, int64_t half_full, int64_t half_sliding);

  void clear() {
    count = 0;
    kv.clear();
  }

  int64_t count = 0;
  std::vector<KvLayers> kv;   // of each sequence
  Mirror<int32_t> sequence;   // [rows]: of `kv`
  Mirror<int32_t> ids;        // [rows]
  Mirror<int64_t> positions;  // [rows]
  RowsOfLayers full, sliding;
};

}  // namespace gemtp
