#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <unordered_set>

#include "base/error.h"
#include "base/float16.h"
#include "model/ordered_head.h"
#include "model/tensor_names.h"

namespace gemtp {
namespace {

// Tensors of drafters: the names of llama.cpp, then those of other converters.
const TensorNames kPreProjection{"nextn.pre_projection.weight", "mtp.pre_projection.weight",
                                 "mtp_pre_proj.weight"};
const TensorNames kPostProjection{"nextn.post_projection.weight", "mtp.post_projection.weight",
                                  "mtp_post_proj.weight"};

class Loader {
 public:
  Loader(const GgufFile& file, Storage& storage, Weights& weights,
         const std::function<void(int64_t)>& read, Problems* problems)
      : file_(file), storage_(&storage), weights_(weights), read_(read), problems_(problems) {}

  /// What is loaded from now on lies there.
  void into(Storage& storage) { storage_ = &storage; }

  template <class Part>
  auto attempt(const Part& part) const {
    return gemtp::attempt(problems_, part);
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::kFile, file_.quoted_path() + ": " + what);
  }
  [[noreturn]] void fail(const Tensor& t, const std::string& what) const {
    throw Error(ErrorKind::kFile, file_.quoted_path(t) + ": " + what);
  }

  bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }
  /// Records that the file may have this tensor although nothing is computed with it.
  void know(const std::string& name) const {
    if (const Tensor* t = file_.find_tensor(name)) known_.insert(t);
  }

  /// Throws Error{kFile} for a tensor that nothing has requested, because the model was trained
  /// with it. If there are problems, some requests may be missing, so nothing is checked.
  void check_nothing_is_left() const {
    if (problems_ && !problems_->empty()) return;
    for (const Tensor& t : file_.tensors())
      if (!known_.count(&t) && !is_of_media(t.name) && !is_input_scale(t.name))
        fail(t, "tensor " + quoted(t.name) +
                    " has no place in what this version computes, and without it the result would "
                    "be another; take another file of the model, or convert it again");
  }

  /// Returns the tensor, which must have exactly this shape (contiguous dimension first) and a
  /// supported type.
  const Tensor& demand(const std::string& name, const std::vector<int64_t>& shape) const {
    know(name);
    const Tensor* t = file_.find_tensor(name);
    if (!t) fail("tensor " + name + " is missing; convert the model again");
    std::vector<int64_t> have = t->shape, want = shape;
    while (have.size() > 1 && have.back() == 1) have.pop_back();
    while (want.size() > 1 && want.back() == 1) want.pop_back();
    const auto fits = [](int64_t a, int64_t b) { return a == b || b == 0; };  // 0: unknown
    if (!std::equal(have.begin(), have.end(), want.begin(), want.end(), fits))
      fail(*t, "tensor " + name + " has shape " + shape_text(t->shape) +
                   " where the architecture needs " + shape_text(shape));
    if (!dtype_supported(t->type))
      fail(*t,
           format("tensor %s is %s, a type that this version cannot compute with; take the model "
                  "in another type, as Q4_0, Q4_K or Q8_0, or quantize it anew",
                  name.c_str(), dtype_info(t->type)->name));
    return *t;
  }

  /// Number of rows of a tensor that the file has.
  int64_t rows(const std::string& name) const {
    const Tensor& t = *file_.find_tensor(name);
    return t.shape.size() > 1 ? t.shape[1] : 1;
  }

  WeightSource source(const std::string& name, int64_t rows, int64_t cols) const {
    return source_of(demand(name, {cols, rows}), rows, cols);
  }

  /// Loads a matrix of all rows of `source`.
  MatrixPtr layout(const WeightSource& source) {
    const int64_t end = weights_.source_bytes + source.rows * source.row_bytes();
    MatrixPtr m = storage_->load_matrix(source, nullptr, [&](int64_t bytes) { tell(bytes); });
    weights_.matrix_bytes += m->bytes;
    if (weights_.source_bytes < end) tell(end - weights_.source_bytes);  // only measured
    return m;
  }

  /// Loads matrices of `each` of the listed rows at a time. The rows are scattered over the source,
  /// which is kept in memory meanwhile.
  std::unique_ptr<MatrixSet> gather(WeightSource source, const std::vector<int32_t>& rows,
                                    int64_t each, float scale) {
    const AlignedBytes bytes = storage_->read(source);
    source.data = bytes.get();
    std::vector<MatrixPtr> out;
    for (auto from = rows.begin(); from != rows.end(); from += each) {
      const std::vector<int32_t> some(from, from + each);
      out.push_back(storage_->load_matrix(source, &some));
      out.back()->scale = scale;
      weights_.matrix_bytes += out.back()->bytes;
      tell(each * source.row_bytes());
    }
    return storage_->make_set(std::move(out));
  }

  /// Loads a matrix of rows of a tensor, with the tensor's scale.
  MatrixPtr scaled(const WeightSource& rows) {
    MatrixPtr m = layout(rows);
    m->scale = scales(rows.name, 1)[0];
    return m;
  }

  MatrixPtr matrix(const std::string& name, int64_t rows, int64_t cols) {
    return attempt([&] { return scaled(source(name, rows, cols)); });
  }

  /// Reads a vector as floats (F32, F16 or BF16 in the file).
  std::vector<float> values(const std::string& name, int64_t n) const {
    const Tensor& t = demand(name, {n});
    const auto type = static_cast<DType>(t.type);
    const std::vector<uint8_t> bytes = file_.bytes_of(t);
    std::vector<float> v(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      uint16_t h = 0;
      if (type == DType::kF32)
        std::memcpy(&v[static_cast<size_t>(i)], bytes.data() + i * 4, 4);
      else if (type == DType::kF16 || type == DType::kBF16)
        std::memcpy(&h, bytes.data() + i * 2, 2);
      else
        fail(t, format("tensor %s is %s; norms and scales must be F32, F16 or BF16", name.c_str(),
                       dtype_info(t.type)->name));
      if (type == DType::kF16) v[static_cast<size_t>(i)] = gemtp_f16_to_f32(h);
      if (type == DType::kBF16) v[static_cast<size_t>(i)] = gemtp_bf16_to_f32(h);
      if (!std::isfinite(v[static_cast<size_t>(i)]))
        fail(t, "tensor " + name + " holds a NaN or infinite value; the file is damaged");
    }
    return v;
  }

  /// The factors of products with a weight: the tensor "….scale" beside "….weight", one value or
  /// one for each expert. (An "….input_scale" says how to quantize the weight's input to 4-bit
  /// floats. Like llama.cpp on a CPU, this runtime ignores it.)
  std::vector<float> scales(const std::string& name, int64_t n) const {
    const std::string scale = name.substr(0, name.rfind('.')) + ".scale";
    return has(scale) ? values(scale, n) : std::vector<float>(static_cast<size_t>(n), 1.0f);
  }

  Buffer vector(const std::string& name, int64_t n) const {
    return attempt([&] {
      const std::vector<float> v = values(name, n);
      Buffer b = storage_->alloc(n);
      storage_->write(v.data(), n, b.get());
      return b;
    });
  }

  Mirror<int32_t> ids(const std::vector<int32_t>& values) const {
    const auto n = static_cast<int64_t>(values.size());
    Mirror<int32_t> out = storage_->mirror<int32_t>(n);
    if (out.host()) std::copy(values.begin(), values.end(), out.host());  // null: only measured
    storage_->write(values.data(), n, out.device());
    return out;
  }

  /// Loads the experts of a 3-D tensor [experts, rows, cols], one matrix each, of rows [first,
  /// first + count). own_scales: apply the tensor's scales here.
  std::unique_ptr<MatrixSet> experts(const std::string& name, int64_t n, int64_t rows, int64_t cols,
                                     int64_t first, int64_t count, bool own_scales = true) {
    return attempt([&] {
      const Tensor& t = demand(name, {cols, rows, n});
      const WeightSource all = source_of(t, rows * n, cols);
      const std::vector<float> scale =
          own_scales ? scales(name, n) : std::vector<float>(static_cast<size_t>(n), 1.0f);
      std::vector<MatrixPtr> out;
      for (int64_t e = 0; e < n; ++e) {
        out.push_back(layout(all.slice(e * rows + first, count)));
        out.back()->scale = scale[static_cast<size_t>(e)];
      }
      return storage_->make_set(std::move(out));
    });
  }

 private:
  // Ollama stores the image and audio towers in the file of the text model.
  static bool is_of_media(const std::string& name) {
    return name.starts_with("v.") || name.starts_with("a.") || name.starts_with("mm.");
  }
  static bool is_input_scale(const std::string& name) { return name.ends_with(".input_scale"); }

  WeightSource source_of(const Tensor& t, int64_t rows, int64_t cols) const {
    return {static_cast<DType>(t.type), rows, cols, nullptr, t.name, &file_.file_of(t), t.offset};
  }

  void tell(int64_t bytes) {
    weights_.source_bytes += bytes;
    if (read_) read_(bytes);
  }

  const GgufFile& file_;
  Storage* storage_;
  Weights& weights_;
  const std::function<void(int64_t)>& read_;
  Problems* problems_;
  mutable std::unordered_set<const Tensor*> known_;
};

// Loads the projections of one layer from one tensor with the rows of Q, K and V in that order. V
// is absent if the layer computes its values from K; a layer that shares K/V needs only Q.
void load_fused_qkv(Loader& load, const Config& c, const LayerConfig& l, const std::string& name,
                    bool owns_kv, bool k_is_v, LayerWeights& w) {
  const int64_t q_rows = l.heads * l.head_dim, kv_rows = l.kv_heads * l.head_dim;
  int64_t rows = q_rows + (k_is_v ? 1 : 2) * kv_rows;
  if (!owns_kv) {  // K and V may be present, unused
    const int64_t given = load.rows(name) - q_rows;
    rows = q_rows + (given == kv_rows || given == 2 * kv_rows ? given : 0);
  }
  const WeightSource s = load.source(name, rows, c.hidden);
  w.q = load.scaled(s.slice(0, q_rows));
  if (!owns_kv) return;
  w.k = load.scaled(s.slice(q_rows, kv_rows));
  if (!k_is_v) w.v = load.scaled(s.slice(q_rows + kv_rows, kv_rows));
}

void load_attention(Loader& load, const Config& c, const LayerConfig& l, const std::string& p,
                    bool owns_kv, bool k_is_v, LayerWeights& w) {
  const int64_t q_rows = l.heads * l.head_dim, kv_rows = l.kv_heads * l.head_dim;
  w.attn_norm = load.vector(p + "attn_norm.weight", c.hidden);
  if (load.has(p + "attn_qkv.weight")) {
    load.attempt([&] { load_fused_qkv(load, c, l, p + "attn_qkv.weight", owns_kv, k_is_v, w); });
  } else {
    w.q = load.matrix(p + "attn_q.weight", q_rows, c.hidden);
    if (owns_kv) {
      w.k = load.matrix(p + "attn_k.weight", kv_rows, c.hidden);
      if (!k_is_v) w.v = load.matrix(p + "attn_v.weight", kv_rows, c.hidden);
    }
  }
  // A layer that shares K/V may have these tensors, but nothing reads them.
  if (!owns_kv)
    for (const char* unread :
         {"attn_k.weight", "attn_v.weight", "attn_k_norm.weight", "attn_k.scale", "attn_v.scale"})
      load.know(p + unread);
  w.q_norm = load.vector(p + "attn_q_norm.weight", l.head_dim);
  if (owns_kv) w.k_norm = load.vector(p + "attn_k_norm.weight", l.head_dim);
  w.attn_output = load.matrix(p + "attn_output.weight", c.hidden, q_rows);
  w.attn_post_norm = load.vector(p + "post_attention_norm.weight", c.hidden);
}

std::unique_ptr<ExpertWeights> load_experts(Loader& load, const Config& c, int i,
                                            const std::string& p, Split<Storage> storages) {
  auto e = std::make_unique<ExpertWeights>();
  const std::string router = p + "ffn_gate_inp.weight";  // its .scale applies to its input
  e->router = load.attempt([&] { return load.layout(load.source(router, c.experts, c.hidden)); });
  e->router_scale = load.vector(p + "ffn_gate_inp.scale", c.hidden);
  load.into(storages.of_experts(i));
  e->per_expert_scale = load.vector(p + "ffn_down_exps.scale", c.experts);
  if (load.has(p + "ffn_gate_up_exps.weight")) {
    const std::string name = p + "ffn_gate_up_exps.weight";
    e->experts.gate = load.experts(name, c.experts, 2 * c.expert_ffn, c.hidden, 0, c.expert_ffn);
    e->experts.up =
        load.experts(name, c.experts, 2 * c.expert_ffn, c.hidden, c.expert_ffn, c.expert_ffn);
  } else {
    for (auto [name, out] : {std::pair{"ffn_gate_exps.weight", &e->experts.gate},
                             {"ffn_up_exps.weight", &e->experts.up}})
      *out = load.experts(p + name, c.experts, c.expert_ffn, c.hidden, 0, c.expert_ffn);
  }
  e->experts.down =
      load.experts(p + "ffn_down_exps.weight", c.experts, c.hidden, c.expert_ffn, 0, c.hidden,
                   /*own_scales=*/false);  // they become per_expert_scale
  load.into(storages.of_layer(i));
  e->dense_post_norm = load.vector(p + "post_ffw_norm_1.weight", c.hidden);
  e->pre_norm = load.vector(p + "pre_ffw_norm_2.weight", c.hidden);
  e->post_norm = load.vector(p + "post_ffw_norm_2.weight", c.hidden);
  return e;
}

// Whether the full-attention layers compute their values from K; then none of them has a V
// projection.
bool full_layers_reuse_k(const Loader& load, const Config& c) {
  if (c.per_layer) return false;  // the E series always has V projections
  for (int i = 0; i < c.kv_layers; ++i) {
    const LayerConfig& l = c.layers[static_cast<size_t>(i)];
    const std::string p = "blk." + std::to_string(i) + ".";
    if (l.sliding) continue;
    if (load.has(p + "attn_v.weight")) return false;
    if (load.has(p + "attn_qkv.weight") &&
        load.rows(p + "attn_qkv.weight") != (l.heads + l.kv_heads) * l.head_dim)
      return false;
  }
  return true;
}

void load_layer(Loader& load, const Config& c, int i, bool full_k_is_v, Split<Storage> storages,
                LayerWeights& w) {
  load.into(storages.of_layer(i));
  const LayerConfig& l = c.layers[static_cast<size_t>(i)];
  const std::string p = "blk." + std::to_string(i) + ".";
  load_attention(load, c, l, p, i < c.kv_layers, !l.sliding && full_k_is_v, w);
  w.ffn_norm = load.vector(p + "ffn_norm.weight", c.hidden);
  w.ffn_gate = load.matrix(p + "ffn_gate.weight", l.ffn, c.hidden);
  w.ffn_up = load.matrix(p + "ffn_up.weight", l.ffn, c.hidden);
  w.ffn_down = load.matrix(p + "ffn_down.weight", c.hidden, l.ffn);
  w.ffn_post_norm = load.vector(p + "post_ffw_norm.weight", c.hidden);
  if (c.experts) w.moe = load_experts(load, c, i, p, storages);
  if (c.per_layer) {
    w.ple_gate = load.matrix(p + "inp_gate.weight", c.per_layer, c.hidden);
    w.ple_proj = load.matrix(p + "proj.weight", c.hidden, c.per_layer);
    w.ple_post_norm = load.vector(p + "post_norm.weight", c.hidden);
  }
  if (load.has(p + "layer_output_scale.weight"))
    load.attempt([&] { w.output_scale = load.values(p + "layer_output_scale.weight", 1)[0]; });
}

// Gemma 4's factors: the first quarter of the pairs rotates, the rest does not.
std::vector<float> proportional_factors(int64_t pairs) {
  std::vector<float> factors(static_cast<size_t>(pairs), 1e30f);
  std::fill(factors.begin(), factors.begin() + pairs / 4, 1.0f);
  return factors;
}

// Factors of the full-attention layers; empty if there are none.
std::vector<float> load_rope_factors(const Loader& load, const Config& c) {
  const std::string name = "rope_freqs.weight";
  const auto full = std::find_if(c.layers.begin(), c.layers.end(),
                                 [](const LayerConfig& l) { return !l.sliding; });
  if (full == c.layers.end()) return {};
  // Some converters leave them out of drafters.
  if (c.drafter && !load.has(name)) return proportional_factors(full->head_dim / 2);
  std::vector<float> factors = load.values(name, full->head_dim / 2);
  // Factors divide frequencies of at most one radian per token, and portable_sincos() takes at most
  // 2^24 radians.
  for (float f : factors)
    if (!(f >= 1))
      load.fail(
          format("tensor %s holds %g; what divides the frequencies of RoPE is at least 1, so "
                 "the file is damaged: convert or download it again",
                 name.c_str(), static_cast<double>(f)));
  return factors;
}

void load_ordered_head(Loader& load, const GgufFile& file, const Config& c, Weights& w) {
  if (c.hidden == 0) return;  // unknown, so no size can be checked
  const Centroids centroids = read_centroids(file, c.centroids * c.hidden);
  if (centroids.values.empty()) {
    w.centroids = load.matrix(centroids.name, c.centroids, c.hidden);
  } else {
    const auto* bytes = reinterpret_cast<const uint8_t*>(centroids.values.data());
    w.centroids = load.layout(
        {DType::kF32, c.centroids, c.hidden, bytes, centroids.name, &file.metadata_file()});
  }
  const std::vector<int32_t> order = read_token_order(file, c.vocab, c.centroids);
  w.clusters.tokens = load.ids(order);
  const std::string name = load.has("output.weight") ? "output.weight" : "token_embd.weight";
  w.clusters.clusters = load.gather(load.source(name, c.vocab, c.hidden), order,
                                    c.vocab / c.centroids, load.scales(name, 1)[0]);
}

}  // namespace

int64_t bytes_per_pass(const Weights& weights, const Config& config, int rows) {
  double unread = 0;
  // Adds `times` times `used` of the matrices, which all have the same size.
  const auto add = [&unread](const std::unique_ptr<MatrixSet>& set, int64_t used, int times) {
    if (!set) return;
    double all = 0;
    for (const MatrixPtr& m : set->matrices) all += static_cast<double>(m->bytes);
    const double n = static_cast<double>(set->size());
    unread += all * std::pow(1 - static_cast<double>(used) / n, times);
  };
  for (const LayerWeights& l : weights.layers)
    if (l.moe)
      for (const auto* experts : {&l.moe->experts.gate, &l.moe->experts.up, &l.moe->experts.down})
        add(*experts, config.experts_used, rows);
  add(weights.clusters.clusters, config.centroid_top_k, 1);
  return weights.matrix_bytes - std::llround(unread);
}

Weights load_weights(std::shared_ptr<const GgufFile> file, const Config& c, Split<Storage> storages,
                     const std::function<void(int64_t)>& read, Problems* problems) {
  Weights w;
  w.file = file;
  Loader load(*file, storages.of_layer(0), w, read, problems);

  for (const char* scale : {"token_embd.scale", "per_layer_token_embd.scale"})
    load.attempt([&] {
      if (load.has(scale))
        load.fail(
            format("tensor %s multiplies a table, which no known file of Gemma 4 does and this "
                   "version cannot; take another file of the model",
                   scale));
    });
  load.attempt([&] { w.token_embedding = load.source("token_embd.weight", c.vocab, c.hidden); });

  if (c.per_layer) {
    const int64_t packed = c.per_layer * c.n_layers();
    load.attempt([&] {
      w.per_layer_embedding = load.source("per_layer_token_embd.weight", c.vocab, packed);
    });
    w.ple_norm = load.vector("per_layer_proj_norm.weight", c.per_layer);
  }
  load.attempt([&] { w.rope_factors = load_rope_factors(load, c); });
  load.know("rope_freqs.weight");  // unused without full-attention layers

  load.attempt([&] {
    if (!c.per_layer) return;
    const std::string name = "per_layer_model_proj.weight";
    const WeightSource all = load.source(name, c.per_layer * c.n_layers(), c.hidden);
    const int64_t early = c.early_layers() * c.per_layer;
    if (early) w.ple_early_projection = load.layout(all.slice(0, early));
    w.ple_late_projection = load.layout(all.slice(early, all.rows - early));
  });

  w.layers.resize(c.layers.size());
  const bool full_k_is_v = full_layers_reuse_k(load, c);
  for (int i = 0; i < c.n_layers(); ++i)
    load_layer(load, c, i, full_k_is_v, storages, w.layers[static_cast<size_t>(i)]);
  load.into(storages.device);
  w.output_norm = load.vector("output_norm.weight", c.hidden);
  if (c.drafter) {
    w.pre_projection = load.matrix(name_of(kPreProjection, *file), c.hidden, 2 * c.backbone);
    w.post_projection = load.matrix(name_of(kPostProjection, *file), c.backbone, c.hidden);
    for (const std::string& name : ordered_head_tensors(*file)) load.know(name);
    if (c.centroids) load.attempt([&] { load_ordered_head(load, *file, c, w); });
  }
  if (!w.clusters.clusters) {
    const bool untied = load.has("output.weight");
    w.head =
        untied ? load.matrix("output.weight", c.vocab, c.hidden) : load.layout(w.token_embedding);
  }
  load.check_nothing_is_left();
  file->check_unchanged();
  return w;
}

void settle_tables(Weights& weights, Storage& storage, bool in_memory) {
  weights.file->expect_random();
  if (!in_memory) return;
  for (WeightSource* table : {&weights.token_embedding, &weights.per_layer_embedding}) {
    if (table->rows == 0) continue;
    weights.tables.push_back(storage.read(*table));
    table->data = weights.tables.back().get();
  }
  weights.file->check_unchanged();
}

}  // namespace gemtp
