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

Target::Target(const Config& config, const Weights& weights, Backend& backend, int64_t max_rows)
    : config_(config),
      weights_(weights),
      backend_(backend),
      max_rows_(max_rows),
      scratch_(config, backend, max_rows),
      rope_full_(make_rope(config, weights, false)),
      rope_sliding_(make_rope(config, weights, true)),
      embedded_(backend.alloc(max_rows * config.hidden)),
      x_(backend.alloc(max_rows * config.hidden)) {}

void Target::forward(KvCache& kv, const int32_t* ids, int64_t m, int64_t want, float* hidden,
                     BestLogit* best, float* logits) {
  GEMTP_ASSERT(m >= 1 && m <= max_rows_ && want >= 0 && want <= m);
  const Config& c = config_;
  const int64_t first = kv.length();
  backend_.embed(weights_.token_embedding, ids, m, 0, c.hidden,
                 std::sqrt(static_cast<float>(c.hidden)), embedded_.get());
  std::memcpy(x_.get(), embedded_.get(), static_cast<size_t>(m * c.hidden) * sizeof(float));

  std::vector<AttentionSpan> full(static_cast<size_t>(m)), sliding(static_cast<size_t>(m));
  for (int64_t i = 0; i < m; ++i) {
    const int64_t p = first + i;
    full[static_cast<size_t>(i)] = {0, p};
    sliding[static_cast<size_t>(i)] = {std::max<int64_t>(0, p - c.window + 1), p};
  }
  const RopeRows rope_full = rope_full_.rows(first, m);
  const RopeRows rope_sliding = rope_sliding_.rows(first, m);

  int64_t rows = m;  // still on their way; always the trailing ones
  for (int i = 0; i < c.n_layers() && rows > 0; ++i) {
    const LayerConfig& l = c.layers[static_cast<size_t>(i)];
    const int64_t skip = m - rows;  // rows that have left
    const int64_t keep = i + 1 >= c.kv_layers ? want : rows;
    const RopeRows& rope = l.sliding ? rope_sliding : rope_full;
    LayerPass pass;
    pass.m = rows;
    pass.keep = keep;
    pass.first = first + skip;
    pass.rope = {rope.cos + skip * rope.half, rope.sin + skip * rope.half, rope.half};
    pass.spans = (l.sliding ? sliding : full).data() + (m - keep);
    pass.own = i < c.kv_layers ? &kv.layer(i) : nullptr;
    pass.read = &kv.layer(l.kv_source);
    pass.ids = ids + skip;
    pass.embedded = embedded_.get() + skip * c.hidden;
    pass.weights = &weights_;
    pass.index = i;
    layer_forward(c, weights_.layers[static_cast<size_t>(i)], pass, scratch_, backend_,
                  x_.get() + skip * c.hidden);
    rows = keep;
  }
  kv.advance(m);
  if (want == 0) return;

  const float* last = x_.get() + (m - want) * c.hidden;
  backend_.rms_norm(last, weights_.output_norm.get(), want, c.hidden, c.eps, hidden);
  if (best) backend_.head(*weights_.head, hidden, want, c.softcap, logits, best);
}

}  // namespace gemtp
