#include "engine/random_model.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace gemtp {
namespace {

// A type of file that is packed into a format, and what its blocks must not be random in.
struct BlockType {
  gemtp_format format;
  DType type;
  uint16_t scale;                        // the least f16 of the scales, which vary by a factor of 2
  std::initializer_list<size_t> f16_at;  // where a block has them
};
const BlockType kBlockTypes[] = {
    {GEMTP_F32, DType::kF32, 0, {}},
    {GEMTP_F16, DType::kF16, 0, {}},
    {GEMTP_BF16, DType::kBF16, 0, {}},
    {GEMTP_Q8_0, DType::kQ8_0, 0x1400, {0}},
    {GEMTP_Q4_0, DType::kQ4_0, 0x2400, {0}},
    {GEMTP_Q4_1, DType::kQ4_1, 0x2400, {0, 2}},
    {GEMTP_Q5_0, DType::kQ5_0, 0x2000, {0}},
    {GEMTP_Q5_1, DType::kQ5_1, 0x2000, {0, 2}},
    {GEMTP_Q4_K, DType::kQ4_K, 0x1000, {0, 2}},
    {GEMTP_Q5_K, DType::kQ5_K, 0x0c00, {0, 2}},
    {GEMTP_Q6_K, DType::kQ6_K, 0x0800, {208}},
    {GEMTP_IQ4_NL, DType::kIQ4_NL, 0x1400, {0}},
    {GEMTP_MXFP4, DType::kMXFP4, 0, {}},
    {GEMTP_IQ4_XS, DType::kIQ4_XS, 0x0800, {0}},
    {GEMTP_T4_G, DType::kQ3_K, 0x1400, {108}},
    {GEMTP_T4_GM, DType::kQ2_K, 0x2000, {80, 82}},
};

const BlockType& block_type(gemtp_format format) {
  const auto at = std::find_if(std::begin(kBlockTypes), std::end(kBlockTypes),
                               [format](const BlockType& t) { return t.format == format; });
  GEMTP_ASSERT(at != std::end(kBlockTypes));
  return *at;
}

constexpr int64_t kVocab = 100, kClusters = 10;

// Makes weights from one seed.
class Maker {
 public:
  Maker(gemtp_format format, Storage& storage, RandomModel& model)
      : format_(format), storage_(&storage), model_(model) {}

  /// What is made from now on lies there.
  void into(Storage& storage) { storage_ = &storage; }

  MatrixPtr matrix(int64_t rows, int64_t cols) {
    return storage_->load_matrix(source(format_, rows, cols));
  }
  MatrixPtr floats(int64_t rows, int64_t cols) {
    return storage_->load_matrix(source(GEMTP_F32, rows, cols));
  }
  WeightSource source(int64_t rows, int64_t cols) { return source(format_, rows, cols); }
  MatrixPtr matrix(const WeightSource& source) { return storage_->load_matrix(source); }

  Buffer vector(int64_t n) {
    Buffer out = storage_->alloc(n);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = number();
    storage_->write(values.data(), n, out.get());
    return out;
  }
  std::unique_ptr<MatrixSet> set(int64_t count, int64_t rows, int64_t cols) {
    std::vector<MatrixPtr> all;
    for (int64_t i = 0; i < count; ++i) {
      all.push_back(matrix(rows, cols));
      all.back()->scale = 0.5f + number() * number();
    }
    return storage_->make_set(std::move(all));
  }
  Mirror<int32_t> shuffled_ids(int64_t n, int64_t each) {
    std::vector<int32_t> ids(static_cast<size_t>(n));
    std::iota(ids.begin(), ids.end(), 0);
    for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[bits() % i]);
    for (auto at = ids.begin(); at != ids.end(); at += each) std::sort(at, at + each);
    Mirror<int32_t> out = storage_->mirror<int32_t>(n);
    std::copy(ids.begin(), ids.end(), out.host());
    storage_->write(ids.data(), n, out.device());
    return out;
  }

 private:
  uint64_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator
    return state_ >> 33;
  }
  float number() { return static_cast<float>(bits() % 4096) / 2048.0f - 1.0f; }

  WeightSource source(gemtp_format format, int64_t rows, int64_t cols) {
    const BlockType& t = block_type(format);
    auto& bytes = *model_.sources.emplace_back(std::make_unique<std::vector<uint8_t>>());
    WeightSource out{t.type, rows, cols};
    bytes.resize(static_cast<size_t>(rows * out.row_bytes()));
    const auto block = static_cast<size_t>(dtype_info(static_cast<uint32_t>(t.type))->bytes);
    for (size_t at = 0; at < bytes.size(); at += block) fill(t, &bytes[at], block);
    out.data = bytes.data();
    return out;
  }
  void fill(const BlockType& t, uint8_t* block, size_t bytes) {
    const auto put = [block](size_t at, auto value) {
      std::memcpy(block + at, &value, sizeof value);
    };
    if (t.type == DType::kF32) return put(0, number());
    // Floats of 16 bits: either sign, from 1/16 on to 1/2.
    if (t.type == DType::kF16)
      return put(0, static_cast<uint16_t>(0x2c00 + bits() % 0xc00 + bits() % 2 * 0x8000));
    if (t.type == DType::kBF16)
      return put(0, static_cast<uint16_t>(0x3d80 + bits() % 0x180 + bits() % 2 * 0x8000));
    for (size_t i = 0; i < bytes; ++i) block[i] = static_cast<uint8_t>(bits());
    for (const size_t at : t.f16_at) put(at, static_cast<uint16_t>(t.scale + bits() % 0x400));
    if (t.type == DType::kMXFP4) block[0] = static_cast<uint8_t>(118 + bits() % 4);  // 2^(x - 127)
  }

  const gemtp_format format_;
  Storage* storage_;
  RandomModel& model_;
  uint64_t state_ = 7;
};

// The widths that the format's blocks allow: 32, or 256.
int64_t block_of(gemtp_format format) {
  return std::max<int64_t>(32, dtype_info(static_cast<uint32_t>(block_type(format).type))->block);
}

Config dense_config(gemtp_format format) {
  const int64_t block = block_of(format), hidden = std::max<int64_t>(96, block);
  const int64_t heads = block == 32 ? 6 : 8, wide = hidden + (block == 32 ? 64 : 0);
  Config c;
  c.vocab = kVocab;
  c.hidden = hidden;
  c.per_layer = block;
  c.window = 8;
  c.softcap = 30;
  c.kv_layers = 2;
  c.layers = {{true, heads, 2, 32, hidden, 0},
              {false, 4, 2, 64, hidden, 1},
              {true, heads, 2, 32, wide, 0},
              {false, 4, 2, 64, wide, 1}};
  return c;
}

Config expert_config(gemtp_format format) {
  Config c = dense_config(format);
  const int64_t heads = c.layers[0].heads;
  c.per_layer = 0;
  c.experts = 6;
  c.experts_used = 2;
  c.expert_ffn = block_of(format);
  c.kv_layers = 3;
  c.layers = {{true, heads, 2, 32, c.hidden, 0},
              {false, 8, 2, 64, c.hidden, 1},
              {true, heads, 2, 32, c.hidden, 2}};
  return c;
}

Config drafter_config(gemtp_format format) {
  Config c = dense_config(format);
  c.drafter = true;
  c.backbone = c.hidden;
  c.per_layer = 0;
  c.kv_layers = 0;
  c.centroids = kClusters;
  c.centroid_top_k = 3;
  c.layers.resize(2);
  return c;
}

std::unique_ptr<ExpertWeights> expert_weights(Maker& make, const Config& c, Storage& of_experts,
                                              Storage& of_layer) {
  auto w = std::make_unique<ExpertWeights>();
  w->router = make.floats(c.experts, c.hidden);
  for (Buffer* norm : {&w->router_scale, &w->dense_post_norm, &w->pre_norm, &w->post_norm})
    *norm = make.vector(c.hidden);
  make.into(of_experts);
  w->per_expert_scale = make.vector(c.experts);
  w->experts = {make.set(c.experts, c.expert_ffn, c.hidden),
                make.set(c.experts, c.expert_ffn, c.hidden),
                make.set(c.experts, c.hidden, c.expert_ffn)};
  make.into(of_layer);
  return w;
}

LayerWeights layer(Maker& make, const Config& c, int i, Split<Storage> storages) {
  make.into(storages.of_layer(i));
  const LayerConfig& l = c.layers[static_cast<size_t>(i)];
  LayerWeights w;
  w.attn_norm = make.vector(c.hidden);
  w.q = make.matrix(l.heads * l.head_dim, c.hidden);
  w.q_norm = make.vector(l.head_dim);
  if (i < c.kv_layers) {
    w.k = make.matrix(l.kv_heads * l.head_dim, c.hidden);
    if (l.sliding || !c.experts) w.v = make.matrix(l.kv_heads * l.head_dim, c.hidden);
    w.k_norm = make.vector(l.head_dim);
  }
  w.attn_output = make.matrix(c.hidden, l.heads * l.head_dim);
  w.attn_post_norm = make.vector(c.hidden);
  w.ffn_norm = make.vector(c.hidden);
  w.ffn_post_norm = make.vector(c.hidden);
  w.ffn_gate = make.matrix(l.ffn, c.hidden);
  w.ffn_up = make.matrix(l.ffn, c.hidden);
  w.ffn_down = make.matrix(c.hidden, l.ffn);
  if (c.experts) w.moe = expert_weights(make, c, storages.of_experts(i), storages.of_layer(i));
  if (c.per_layer) {
    w.ple_gate = make.matrix(c.per_layer, c.hidden);
    w.ple_proj = make.matrix(c.hidden, c.per_layer);
    w.ple_post_norm = make.vector(c.hidden);
  }
  w.output_scale = 0.75f;
  return w;
}

void make_layers(Maker& make, RandomModel& model, Split<Storage> storages) {
  for (int i = 0; i < model.config.n_layers(); ++i)
    model.weights.layers.push_back(layer(make, model.config, i, storages));
  make.into(storages.device);
  model.weights.output_norm = make.vector(model.config.hidden);
  model.weights.rope_factors.assign(32, 1.0f);
}

RandomModel target(Config config, gemtp_format format, Split<Storage> storages) {
  RandomModel model;
  model.config = std::move(config);
  const Config& c = model.config;
  Weights& w = model.weights;
  Maker make(format, storages.device, model);
  w.token_embedding = make.source(c.vocab, c.hidden);
  w.head = make.matrix(w.token_embedding);
  make.into(storages.of_layer(0));
  if (c.per_layer) {
    const int64_t all = c.n_layers() * c.per_layer, early = c.early_layers() * c.per_layer;
    w.per_layer_embedding = make.source(c.vocab, all);
    w.ple_early_projection = make.matrix(early, c.hidden);
    w.ple_late_projection = make.matrix(all - early, c.hidden);
    w.ple_norm = make.vector(c.per_layer);
  }
  make_layers(make, model, storages);
  return model;
}

}  // namespace

RandomModel RandomModel::dense(gemtp_format format, Split<Storage> storages) {
  return target(dense_config(format), format, storages);
}

RandomModel RandomModel::experts(gemtp_format format, Split<Storage> storages) {
  return target(expert_config(format), format, storages);
}

RandomModel RandomModel::drafter(gemtp_format format, Storage& storage) {
  RandomModel model;
  model.config = drafter_config(format);
  const Config& c = model.config;
  Weights& w = model.weights;
  Maker make(format, storage, model);
  make_layers(make, model, storage);
  w.pre_projection = make.matrix(c.hidden, 2 * c.backbone);
  w.post_projection = make.matrix(c.backbone, c.hidden);
  w.centroids = make.floats(c.centroids, c.hidden);
  w.clusters.clusters = make.set(c.centroids, c.vocab / c.centroids, c.hidden);
  w.clusters.tokens = make.shuffled_ids(c.vocab, c.vocab / c.centroids);
  return model;
}

}  // namespace gemtp
