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

TargetScratch::TargetScratch(const Config& config, Storage& storage, int64_t rows)
    : rows(make_rows(config, storage, rows)),
      per_layer(config, storage, rows),
      layer(config, storage, rows),
      x(storage.mirror<float>(rows * config.hidden)) {}

Target::Target(const Config& config, const Weights& weights, Backend& backend, int64_t max_rows)
    : config_(config),
      weights_(weights),
      backend_(backend),
      max_rows_(max_rows),
      rope_full_(make_rope(config, weights, false)),
      rope_sliding_(make_rope(config, weights, true)),
      scratch_(config, backend, max_rows),
      recordings_(backend.make_recordings()) {}

void Target::forward(std::span<const SequenceRows> sequences, const TargetOutputs& outputs) {
  lay_out(sequences, outputs);
  try {
    embed();
    backend_.run(*recordings_, scratch_.rows, shape_, [&] {
      backend_.send(scratch_.rows);
      run_layers(outputs);
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
    rows.kv.push_back(s.kv->layers());
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

void Target::run_layers(const TargetOutputs& outputs) {
  const Config& c = config_;
  const int64_t m = scratch_.rows.count;
  const Device<float> x = scratch_.x.device(), hidden = outputs.hidden.device();
  backend_.send(scratch_.x, 0, m * c.hidden);
  if (c.per_layer)
    scratch_.per_layer.finish(scratch_.rows, wanted_, weights_, x, scratch_.layer.gated.get(),
                              backend_);
  backend_.norm(x, m, c.hidden, c.eps, {norm_after(-1, weights_, scratch_.layer, hidden)});

  int64_t rows = m;  // rows still in progress, always the trailing ones
  GEMTP_ASSERT(outputs.hidden.size() >= wanted_ * c.hidden);
  for (int i = 0; i < c.n_layers() && rows > 0 && !backend_.stopped(); ++i) {
    const auto at = static_cast<size_t>(i);
    const int64_t first = m - rows;
    LayerPass pass{scratch_.rows, first, rows};
    pass.keep = i < c.early_layers() ? rows : wanted_;
    if (c.per_layer) pass.per_layer = scratch_.per_layer.of(i);
    pass.next = norm_after(i, weights_, scratch_.layer, hidden);
    pass.index = i;
    pass.kv_source = c.layers[at].kv_source;
    pass.owns_kv = i < c.kv_layers;
    layer_forward(c, weights_.layers[at], pass, scratch_.layer, backend_, x + first * c.hidden);
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
