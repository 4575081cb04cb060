// The rows of a pass: their sequences, their positions, and the positions they attend to. Two
// passes of the same shape differ in nothing else, so operations read it from the backend's memory,
// to which it is sent once per pass.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/device.h"

namespace gemtp {

class KvLayer;
class Storage;

/// The range of positions that one query row attends to, both ends inclusive.
struct AttentionSpan {
  int32_t first = 0, last = 0;
};

/// Rotation angles of rows: cos and sin, [rows, half] each.
struct RopeAngles {
  RopeAngles() = default;
  RopeAngles(Storage& storage, int64_t rows, int64_t half);

  int64_t half = 0;  // half of a head's width
  Mirror<float> cos, sin;
};

/// K/V of a sequence, layer by layer.
using KvLayers = std::span<const std::unique_ptr<KvLayer>>;

/// Spans and angles for all layers of one type.
struct RowsOfLayers {
  Mirror<AttentionSpan> spans;  // [rows]
  RopeAngles angles;
};

struct PassRows {
  /// half_full, half_sliding: half of a head's width in full and in sliding layers.
  PassRows(Storage& storage, int64_t rows, int64_t half_full, int64_t half_sliding);

  void clear() {
    count = 0;
    kv.clear();
  }

  int64_t count = 0;
  std::vector<KvLayers> kv;   // one entry per sequence
  Mirror<int32_t> sequence;   // [rows]: index into `kv`
  Mirror<int32_t> ids;        // [rows]
  Mirror<int32_t> positions;  // [rows]
  RowsOfLayers full, sliding;
};

/// The K/V of one layer of the row's sequence.
inline KvLayer& layer_of(const PassRows& rows, int layer, int64_t row) {
  return *rows.kv[static_cast<size_t>(rows.sequence[row])][static_cast<size_t>(layer)];
}

/// Calls fn(K/V of the layer, row, rows) for the rows first .. first + m - 1, once per run of
/// consecutive rows of the same sequence.
template <class Fn>
void for_each_sequence(const PassRows& pass, int layer, int64_t first, int64_t m, const Fn& fn) {
  for (int64_t row = first; row < first + m;) {
    int64_t end = row + 1;
    while (end < first + m && pass.sequence[end] == pass.sequence[row] &&
           pass.positions[end] == pass.positions[end - 1] + 1)
      ++end;
    fn(layer_of(pass, layer, row), row, end - row);
    row = end;
  }
}

}  // namespace gemtp
