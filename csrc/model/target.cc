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

TargetScratch::TargetScratch(const Config& config, Storage& storage, int64_t rows)
    : layer(config, storage, rows),
      embedded(storage.alloc(rows * config.hidden)),
      x(storage.alloc(rows * config.hidden)),
      normed(storage.alloc(rows * config.hidden)) {}

Target::Target(const Config& config, const Weights& weights, Backend& backend, int64_t max_rows)
    : config_(config),
      weights_(weights),
      backend_(backend),
      max_rows_(max_rows),
      scratch_(config, backend, max_rows),
      rope_full_(make_rope(config, weights, false)),
      rope_sliding_(make_rope(config, weights, true)) {}

void Target::forward(std::span<const SequenceRows> sequences) {
  lay_out(sequences);
  try {
    run_layers(sequences);
    if (wanted_ > 0) give_outputs(sequences);
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

void Target::lay_out(std::span<const SequenceRows> sequences) {
  ranges_.clear();
  ids_.clear();
  positions_.clear();
  wanted_ = 0;
  const auto add = [&](size_t i, int64_t begin, int64_t end) {
    const SequenceRows& s = sequences[i];
    if (begin == end) return;
    const auto row = static_cast<int64_t>(ids_.size()), first = s.kv->length() + begin;
    if (!ranges_.empty() && ranges_.back().sequence == i)
      ranges_.back().m += end - begin;
    else
      ranges_.push_back({i, row, end - begin, first});
    ids_.insert(ids_.end(), s.ids + begin, s.ids + end);
    for (int64_t p = first; p < first + end - begin; ++p) positions_.push_back(p);
  };
  for (size_t i = 0; i < sequences.size(); ++i) {
    const SequenceRows& s = sequences[i];
    GEMTP_ASSERT(s.m >= 1 && s.want >= 0 && s.want <= s.m);
    wanted_ += s.want;
    add(i, 0, s.m - s.want);
  }
  for (size_t i = 0; i < sequences.size(); ++i)
    add(i, sequences[i].m - sequences[i].want, sequences[i].m);
  GEMTP_ASSERT(static_cast<int64_t>(ids_.size()) <= max_rows_);

  full_.clear();
  sliding_.clear();
  for (const int64_t p : positions_) {
    full_.push_back({0, p});
    sliding_.push_back({std::max<int64_t>(0, p - config_.window + 1), p});
  }
}

// Those of the rows from `skip` on, counted from there.
std::span<const RowRange> Target::ranges_of_layer(std::span<const SequenceRows> sequences,
                                                  int layer, int64_t skip) {
  const int source = config_.layers[static_cast<size_t>(layer)].kv_source;
  layer_ranges_.clear();
  for (const Range& r : ranges_) {
    const int64_t left = std::clamp<int64_t>(skip - r.row, 0, r.m);  // rows that have left
    if (left == r.m) continue;
    KvCache& kv = *sequences[r.sequence].kv;
    layer_ranges_.push_back({r.row + left - skip, r.m - left, r.first + left,
                             layer < config_.kv_layers ? &kv.layer(layer) : nullptr,
                             &kv.layer(source)});
  }
  return layer_ranges_;
}

void Target::run_layers(std::span<const SequenceRows> sequences) {
  const Config& c = config_;
  const auto m = static_cast<int64_t>(ids_.size());
  backend_.embed(weights_.token_embedding, ids_.data(), m, 0, c.hidden,
                 std::sqrt(static_cast<float>(c.hidden)), scratch_.embedded.get());
  std::memcpy(scratch_.x.get(), scratch_.embedded.get(),
              static_cast<size_t>(m * c.hidden) * sizeof(float));
  const RopeRows rope_full = rope_full_.rows(positions_.data(), m);
  const RopeRows rope_sliding = rope_sliding_.rows(positions_.data(), m);

  int64_t rows = m;  // still on their way; always the trailing ones
  for (int i = 0; i < c.n_layers() && rows > 0 && !backend_.stopped(); ++i) {
    const LayerConfig& l = c.layers[static_cast<size_t>(i)];
    const int64_t skip = m - rows;  // rows that have left
    const int64_t keep = i + 1 >= c.kv_layers ? wanted_ : rows;
    const RopeRows& rope = l.sliding ? rope_sliding : rope_full;
    LayerPass pass;
    pass.m = rows;
    pass.keep = keep;
    pass.ranges = ranges_of_layer(sequences, i, skip);
    pass.rope = {rope.cos + skip * rope.half, rope.sin + skip * rope.half, rope.half};
    pass.spans = (l.sliding ? sliding_ : full_).data() + (m - keep);
    pass.ids = ids_.data() + skip;
    pass.embedded = scratch_.embedded.get() + skip * c.hidden;
    pass.weights = &weights_;
    pass.index = i;
    layer_forward(c, weights_.layers[static_cast<size_t>(i)], pass, scratch_.layer, backend_,
                  scratch_.x.get() + skip * c.hidden);
    rows = keep;
  }
}

void Target::give_outputs(std::span<const SequenceRows> sequences) {
  const Config& c = config_;
  const auto m = static_cast<int64_t>(ids_.size());
  backend_.rms_norm(scratch_.x.get() + (m - wanted_) * c.hidden, weights_.output_norm.get(),
                    wanted_, c.hidden, c.eps, scratch_.normed.get());
  logits_.clear();
  bool head = false;
  int64_t row = 0;
  for (const SequenceRows& s : sequences) {
    std::memcpy(s.hidden, scratch_.normed.get() + row * c.hidden,
                static_cast<size_t>(s.want * c.hidden) * sizeof(float));
    for (int64_t i = 0; i < s.want; ++i)
      logits_.push_back(s.logits ? s.logits + i * c.vocab : nullptr);
    head |= s.best != nullptr;
    row += s.want;
  }
  if (!head) return;
  best_.resize(static_cast<size_t>(wanted_));
  backend_.head(*weights_.head, scratch_.normed.get(), wanted_, c.softcap, logits_.data(),
                best_.data());
  row = 0;
  for (const SequenceRows& s : sequences) {
    if (s.best) std::copy_n(best_.begin() + row, s.want, s.best);
    row += s.want;
  }
}

}  // namespace gemtp
