// The per-layer inputs (PLE) of a pass: what layers add behind their feed-forward, a slice each, of
// (rms(W_model x hidden^-1/2) w + table[token] sqrt(P)) 2^-1/2, x the scaled embeddings.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "model/config.h"
#include "model/weights.h"

namespace gemtp {

/// All layers' slices, computed before the first layer. Rows without outputs end in the last layer
/// that owns K/V: that one and those behind it (the late ones) have slices of the wanted rows
/// alone.
class PerLayerInputs {
 public:
  /// For passes of at most `rows` rows.
  PerLayerInputs(const Config& config, Storage& storage, int64_t rows);

  /// Looks the table up, on the host: for all rows of the pass, the last `wanted` of which are
  /// wanted.
  void embed(const PassRows& rows, int64_t wanted, const Weights& weights, Backend& backend);
  /// Sends what was looked up, and computes the slices. x: [rows.count, hidden], the scaled
  /// embeddings; scratch: room for rows.count * scratch_width(config) floats.
  void finish(const PassRows& rows, int64_t wanted, const Weights& weights, Device<const float> x,
              Device<float> scratch, Backend& backend);

  /// Sends the slices that the layers from `first` on need, if another backend has computed them.
  void send(const PassRows& rows, int64_t wanted, int first, Backend& backend);

  /// Of one layer: rows of P floats, `stride` apart. The first row is the pass' first one, or its
  /// first wanted one if the layer is a late one.
  struct Slice {
    Device<const float> first;
    int64_t stride = 0;
  };
  Slice of(int layer, const Backend& backend) const;

  static int64_t scratch_width(const Config& config);

 private:
  // Slices of some layers side by side, [rows][layers * P].
  struct Part {
    int64_t first = 0, layers = 0;
    Mirror<float> inputs;
    int64_t width(const Config& c) const { return layers * c.per_layer; }
  };

  const Config& config_;
  Part early_, late_;
};

}  // namespace gemtp
