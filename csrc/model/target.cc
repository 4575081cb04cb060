#include "model/target.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace gemtp {

Rope make_rope(const Config& config, const Weights& weights, bool sliding) {
  for (const LayerConfig& l : config.layers)
    if (l.sliding == sliding)
      return sliding ? Rope(config.rope_base_sliding, l.head_dim, {})
                     : Rope(config.rope_base, l.head_dim, weights.rope_factors);
  return {};
}

namespace {

int64_t half_width(const Config& config, bool sliding) {
  for (const LayerConfig& l : config.layers)
    if (l.sliding == sliding) return l.head_dim / 2;
  return 0;
}

}  // namespace

PassRows make_rows(const Config& config, Storage& storage, int64_t rows) {
  return {storage, rows, half_width(config, false), half_width(config, true)};
}

TargetScratch::TargetScratch(const Config& config, Split<Storage> storages, int64_t rows)
    : rows(make_rows(config, storages.device, rows)),
      per_layer(config, storages.device, rows),
      layer(config, storages, rows),
      x(storages.device.mirror<float>(rows * config.hidden)) {
  if (storages.placement.host_layers > 0)
    host_layer = std::make_unique<LayerScratch>(config, storages.host, rows);
}

Target::Target(const Config& config, const Weights& weights, Split<Backend> backends,
               int64_t max_rows)
    : config_(config),
      weights_(weights),
      backends_(backends),
      backend_(backends.device),
      max_rows_(max_rows),
      rope_full_(make_rope(config, weights, false)),
      rope_sliding_(make_rope(config, weights, true)),
      scratch_(config, backends, max_rows),
      recordings_(backend_.make_recordings()) {}

void Target::forward(std::span<const SequenceRows> sequences, const TargetOutputs& outputs) {
  lay_out(sequences, outputs);
  try {
    embed();
    if (backends_.placement.host_layers > 0) run_on_host(sequences);
    // A recording is repeated as a whole: it cannot wait for experts on the host.
    if (backends_.placement.splits_layers()) shape_.clear();
    backend_.run(*recordings_, scratch_.rows, shape_, [&] {
      backend_.send(scratch_.rows);
      run_on_device(outputs);
      if (wanted_ > 0) give_outputs(sequences, outputs);
    });
    backend_.wait();
    if (backend_.stopped()) throw Error(ErrorKind::kCancelled, "the pass was stopped");
  } catch (...) {
    // Slots of sliding layers may have been overwritten.
    for (const SequenceRows& s : sequences) {
      const int64_t length = s.kv->length();
      s.kv->advance(s.m);
      s.kv->truncate(length);
    }
    throw;
  }
  for (const SequenceRows& s : sequences) s.kv->advance(s.m);
}

void Target::lay_out(std::span<const SequenceRows> sequences, const TargetOutputs& outputs) {
  PassRows& rows = scratch_.rows;
  rows.clear();
  shape_.clear();
  outputs.hidden.append_to(shape_);
  outputs.best.append_to(shape_);
  outputs.logits.append_to(shape_);
  wanted_ = 0;
  for (const SequenceRows& s : sequences) {
    GEMTP_ASSERT(s.m >= 1 && s.want >= 0 && s.want <= s.m);
    rows.kv.push_back(s.kv->on_device());
    wanted_ += s.want;
    shape_.insert(shape_.end(), {s.m, s.want, static_cast<int64_t>(s.head)});
  }
  for (const bool wanted : {false, true})
    for (size_t i = 0; i < sequences.size(); ++i) {
      const SequenceRows& s = sequences[i];
      const int64_t begin = wanted ? s.m - s.want : 0, end = wanted ? s.m : s.m - s.want;
      if (begin < end) rows.begin_run(static_cast<int64_t>(i));
      for (int64_t row = begin; row < end; ++row) add_row(s, row);
    }
  rope_full_.write_angles(rows.positions.host(), rows.count, rows.full.angles);
  rope_sliding_.write_angles(rows.positions.host(), rows.count, rows.sliding.angles);
}

// Adds the i-th row of a sequence.
void Target::add_row(const SequenceRows& s, int64_t i) {
  PassRows& rows = scratch_.rows;
  GEMTP_ASSERT(rows.count < max_rows_);
  const int64_t row = rows.add_row();
  const auto p = static_cast<int32_t>(s.kv->length() + i);
  rows.ids[row] = s.ids[i];
  rows.positions[row] = p;
  rows.full.spans[row] = {0, p};
  rows.sliding.spans[row] = {static_cast<int32_t>(std::max<int64_t>(0, p - config_.window + 1)), p};
}

void Target::embed() {
  const Config& c = config_;
  backend_.embed(weights_.token_embedding, scratch_.rows, 0, scratch_.rows.count, 0, c.hidden,
                 std::sqrt(static_cast<float>(c.hidden)), scratch_.x.host());
  scratch_.per_layer.embed(scratch_.rows, wanted_, weights_, backend_);
}

// Runs the layers on the host, which works on the host's side of what is mirrored. The rest of the
// pass reads what they leave.
void Target::run_on_host(std::span<const SequenceRows> sequences) {
  PassRows& rows = scratch_.rows;
  for (size_t i = 0; i < sequences.size(); ++i) rows.kv[i] = sequences[i].kv->on_host();
  run_layers(backends_.host, *scratch_.host_layer, 0, backends_.placement.host_layers, {});
  for (size_t i = 0; i < sequences.size(); ++i) {
    const SequenceRows& s = sequences[i];
    rows.kv[i] = s.kv->on_device();
    s.kv->update_copies(s.kv->length(), s.m);
  }
}

void Target::run_on_device(const TargetOutputs& outputs) {
  const int first = backends_.placement.host_layers;
  const int64_t rows = rows_before(first), at = (scratch_.rows.count - rows) * config_.hidden;
  GEMTP_ASSERT(outputs.hidden.size() >= wanted_ * config_.hidden);
  if (rows == 0) return;
  backend_.send(scratch_.x, at, rows * config_.hidden);
  if (first > 0 && config_.per_layer)
    scratch_.per_layer.send(scratch_.rows, wanted_, first, backend_);
  run_layers(backend_, scratch_.layer, first, config_.n_layers(), outputs.hidden.device());
}

// Rows that reach a layer, always the trailing ones.
int64_t Target::rows_before(int layer) const {
  return layer <= config_.early_layers() ? scratch_.rows.count : wanted_;
}

// Runs layers first .. end - 1, which lie on the backend. hidden: where the output norm of the last
// layer goes.
void Target::run_layers(Backend& backend, LayerScratch& scratch, int first, int end,
                        Device<float> hidden) {
  const Config& c = config_;
  const int64_t m = scratch_.rows.count;
  const Device<float> x = backend.at(scratch_.x);
  int64_t rows = rows_before(first);  // those still in progress
  if (first == 0 && c.per_layer)
    scratch_.per_layer.finish(scratch_.rows, wanted_, weights_, x, scratch.gated.get(), backend);
  backend.norm(x + (m - rows) * c.hidden, rows, c.hidden, c.eps,
               {norm_after(first - 1, weights_, scratch, hidden)});

  for (int i = first; i < end && rows > 0 && !backend.stopped(); ++i) {
    const auto at = static_cast<size_t>(i);
    LayerPass pass{scratch_.rows, m - rows, rows};
    pass.keep = rows_before(i + 1);
    if (c.per_layer) pass.per_layer = scratch_.per_layer.of(i, backend);
    if (i + 1 < end || &backend == &backend_)  // else the device makes it from x
      pass.next = {norm_after(i, weights_, scratch, hidden)};
    pass.index = i;
    pass.kv_source = c.layers[at].kv_source;
    pass.owns_kv = i < c.kv_layers;
    if (&backends_.of_experts(i) != &backend) pass.host = &backends_.host;
    layer_forward(c, weights_.layers[at], pass, scratch, backend, x + pass.first * c.hidden);
    rows = pass.keep;
  }
}

void Target::give_outputs(std::span<const SequenceRows> sequences, const TargetOutputs& outputs) {
  const Config& c = config_;
  backend_.fetch(outputs.hidden, 0, wanted_ * c.hidden);
  logits_.clear();
  bool head = false;
  for (const SequenceRows& s : sequences) {
    head |= s.head != HeadOutput::kNone;
    for (int64_t i = 0; i < s.want; ++i) {
      const int64_t at = static_cast<int64_t>(logits_.size()) * c.vocab;
      const bool kept = s.head == HeadOutput::kLogits;
      logits_.push_back(kept ? outputs.logits.device() + at : Device<float>());
      GEMTP_ASSERT(!kept || outputs.logits.size() >= at + c.vocab);
    }
  }
  if (!head) return;
  backend_.head(*weights_.head, outputs.hidden.device(), wanted_, c.softcap, logits_,
                outputs.best.device());
  backend_.fetch(outputs.best, 0, wanted_);
  for (size_t i = 0; i < logits_.size(); ++i)
    if (logits_[i]) backend_.fetch(outputs.logits, static_cast<int64_t>(i) * c.vocab, c.vocab);
}

}  // namespace gemtp
