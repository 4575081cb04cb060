// The rows of a pass: their sequences, their positions, and the positions they attend to. Two
// passes of the same shape differ in nothing else, so operations read it from the backend's memory,
// to which it is sent once per pass.
#pragma once

#include <algorithm>
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

/// Consecutive rows of one sequence, at consecutive positions.
struct RowRun {
  int32_t first = 0, count = 0;
  int32_t sequence = 0;  // index into PassRows::kv
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

/// What a backend keeps with the rows of a pass.
class SentRows {
 public:
  virtual ~SentRows() = default;
};

struct PassRows {
  /// half_full, half_sliding: half of a head's width in full and in sliding layers.
  PassRows(Storage& storage, int64_t rows, int64_t half_full, int64_t half_sliding);

  void clear() {
    count = 0;
    kv.clear();
    n_runs = 0;
  }
  /// Begins a run of the rows that are added next.
  void begin_run(int64_t sequence_index) {
    runs[n_runs++] = {static_cast<int32_t>(count), 0, static_cast<int32_t>(sequence_index)};
  }
  /// Adds a row to the last run, and returns its number. The caller sets the rest of the row.
  int64_t add_row() {
    RowRun& run = runs[n_runs - 1];
    ++run.count;
    sequence[count] = run.sequence;
    return count++;
  }

  int64_t count = 0;
  std::vector<KvLayers> kv;  // one entry per sequence
  int64_t n_runs = 0;
  Mirror<RowRun> runs;        // [rows]: of all rows, in order
  Mirror<int32_t> sequence;   // [rows]: index into `kv`
  Mirror<int32_t> ids;        // [rows]
  Mirror<int32_t> positions;  // [rows]
  RowsOfLayers full, sliding;
  std::unique_ptr<SentRows> sent;  // the backend's own
};

/// The K/V of one layer of the run's sequence.
inline KvLayer& layer_of(const PassRows& rows, int layer, const RowRun& run) {
  return *rows.kv[static_cast<size_t>(run.sequence)][static_cast<size_t>(layer)];
}

/// Calls fn(run) for the runs of the rows first .. first + m - 1, or the parts of runs.
template <class Fn>
void for_each_run(const PassRows& rows, int64_t first, int64_t m, const Fn& fn) {
  for (int64_t i = 0; i < rows.n_runs; ++i) {
    const RowRun& run = rows.runs[i];
    const int64_t begin = std::max<int64_t>(first, run.first);
    const int64_t end = std::min<int64_t>(first + m, run.first + run.count);
    if (begin < end)
      fn(RowRun{static_cast<int32_t>(begin), static_cast<int32_t>(end - begin), run.sequence});
  }
}

}  // namespace gemtp
