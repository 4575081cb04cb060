#include "model/per_layer_inputs.h"

#include <algorithm>
#include <cmath>

namespace gemtp {

PerLayerInputs::PerLayerInputs(const Config& c, Storage& storage, int64_t rows) : config_(c) {
  if (!c.per_layer) return;
  early_.layers = c.early_layers();
  late_.first = early_.layers;
  late_.layers = c.n_layers() - early_.layers;
  for (Part* part : {&early_, &late_}) part->inputs = storage.mirror<float>(rows * part->width(c));
}

void PerLayerInputs::embed(const PassRows& rows, int64_t wanted, const Weights& weights,
                           Backend& backend) {
  const int64_t p = config_.per_layer;
  const float scale = std::sqrt(static_cast<float>(p));
  const auto look_up = [&](const Part& part, int64_t m) {
    if (m > 0 && part.layers > 0)
      backend.embed(weights.per_layer_embedding, rows, rows.count - m, m, part.first * p,
                    part.layers * p, scale, part.inputs.host());
  };
  look_up(early_, rows.count);
  look_up(late_, wanted);
}

void PerLayerInputs::finish(const PassRows& rows, int64_t wanted, const Weights& weights,
                            Device<const float> x, Device<float> scratch, Backend& backend) {
  const Config& c = config_;
  const float before = 1.0f / std::sqrt(static_cast<float>(c.hidden));
  const auto add = [&](const Part& part, const MatrixPtr& projection, int64_t m) {
    if (m == 0 || part.layers == 0) return;
    backend.send(part.inputs, 0, m * part.width(c));
    backend.matmul(
        {{projection.get(), x + (rows.count - m) * c.hidden, c.hidden, m, scratch, part.width(c)}});
    const Branch branch{scratch, weights.ple_norm.get(), before, 0.70710678118654752f};
    backend.add_branch(branch, m * part.layers, c.per_layer, c.eps, backend.at(part.inputs), {});
  };
  add(early_, weights.ple_early_projection, rows.count);
  add(late_, weights.ple_late_projection, wanted);
}

void PerLayerInputs::send(const PassRows& rows, int64_t wanted, int first, Backend& backend) {
  if (first < late_.first) backend.send(early_.inputs, 0, rows.count * early_.width(config_));
  backend.send(late_.inputs, 0, wanted * late_.width(config_));
}

PerLayerInputs::Slice PerLayerInputs::of(int layer, const Backend& backend) const {
  const Part& part = layer < late_.first ? early_ : late_;
  return {backend.at(part.inputs) + (layer - part.first) * config_.per_layer, part.width(config_)};
}

int64_t PerLayerInputs::scratch_width(const Config& c) {
  return std::max<int64_t>(c.early_layers(), c.n_layers() - c.early_layers()) * c.per_layer;
}

}  // namespace gemtp
