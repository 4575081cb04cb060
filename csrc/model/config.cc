#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace gemtp {
namespace {

// Reads keys below "{arch}." with bounds; every failure names the file and the key.
class KeyReader {
 public:
  KeyReader(const GgufFile& file, std::string arch) : file_(file), arch_(std::move(arch)) {}

  [[noreturn]] void fail(const std::string& key, const std::string& what) const {
    throw Error(ErrorKind::kFile, format("%s: %s.%s %s", file_.quoted_path().c_str(), arch_.c_str(),
                                         key.c_str(), what.c_str()));
  }

  std::string full(const std::string& key) const { return arch_ + "." + key; }
  bool has(const std::string& key) const { return file_.has(full(key)); }

  int64_t integer(const std::string& key, int64_t low, int64_t high) const {
    const auto v = file_.get_int(full(key));
    if (!v) fail(key, "is missing; a model file must have it");
    return bounded(key, *v, low, high);
  }
  int64_t integer_or(const std::string& key, int64_t low, int64_t high, int64_t fallback) const {
    return has(key) ? integer(key, low, high) : fallback;
  }
  /// Under the first of several names that the file has.
  int64_t integer_of(std::initializer_list<const char*> keys, int64_t low, int64_t high) const {
    for (const char* key : keys)
      if (has(key)) return integer(key, low, high);
    return integer(*keys.begin(), low, high);
  }
  double number_or(const std::string& key, double low, double high, double fallback) const {
    const auto v = file_.get_float(full(key));
    if (!v) return fallback;
    if (!(*v >= low && *v <= high)) fail(key, format("is %g, outside [%g, %g]", *v, low, high));
    return *v;
  }
  /// A scalar for all layers, or an array with one entry a layer.
  std::vector<int64_t> per_layer(const std::string& key, int64_t n, int64_t low,
                                 int64_t high) const {
    const Value* v = file_.find(full(key));
    if (!v) fail(key, "is missing; a model file must have it");
    if (v->type != ValueType::kArray)
      return std::vector<int64_t>(static_cast<size_t>(n), integer(key, low, high));
    std::vector<int64_t> values = *file_.get_ints(full(key));
    if (static_cast<int64_t>(values.size()) != n)
      fail(key,
           format("has %zu entries for %lld layers", values.size(), static_cast<long long>(n)));
    for (int64_t x : values) bounded(key, x, low, high);
    return values;
  }

 private:
  int64_t bounded(const std::string& key, int64_t v, int64_t low, int64_t high) const {
    if (v < low || v > high)
      fail(key, format("is %lld, outside [%lld, %lld]", static_cast<long long>(v),
                       static_cast<long long>(low), static_cast<long long>(high)));
    return v;
  }

  const GgufFile& file_;
  std::string arch_;
};

constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxContext = int64_t{1} << 24;

void read_layers(const KeyReader& keys, Config& c) {
  const int64_t n = keys.integer("block_count", 1, kMaxLayers);
  const auto ffn = keys.per_layer("feed_forward_length", n, 1, kMaxWidth);
  const auto heads = keys.per_layer("attention.head_count", n, 1, 1024);
  const auto kv_heads = keys.per_layer("attention.head_count_kv", n, 1, 1024);
  const auto sliding = keys.per_layer("attention.sliding_window_pattern", n, 0, 1);
  const int64_t dim = keys.integer("attention.key_length", 2, kMaxHeadDim);
  const int64_t dim_sliding = keys.integer_or("attention.key_length_swa", 2, kMaxHeadDim, dim);
  for (const auto& [key, value] : {std::pair<const char*, int64_t>{"attention.value_length", dim},
                                   {"attention.value_length_swa", dim_sliding},
                                   {"rope.dimension_count", dim},
                                   {"rope.dimension_count_swa", dim_sliding}}) {
    const int64_t given = keys.integer_or(key, 0, kMaxHeadDim, value);
    if (given != value)
      keys.fail(key, format("is %lld; Gemma 4 has it equal to the key length, %lld",
                            static_cast<long long>(given), static_cast<long long>(value)));
  }
  if (dim % 2 || dim_sliding % 2) keys.fail("attention.key_length", "is odd; RoPE rotates pairs");

  const int64_t shared = keys.integer_or("attention.shared_kv_layers", 0, n, 0);
  // A drafter owns no K/V at all and may say so with any count; a target must own some.
  c.kv_layers = c.drafter ? 0 : static_cast<int>(n - shared);
  if (!c.drafter && c.kv_layers < 1)
    keys.fail("attention.shared_kv_layers",
              format("is %lld of %lld layers; a target must own the K/V of at least one",
                     static_cast<long long>(shared), static_cast<long long>(n)));
  c.layers.resize(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) {
    LayerConfig& l = c.layers[static_cast<size_t>(i)];
    const auto at = static_cast<size_t>(i);
    l.sliding = sliding[at] != 0;
    l.heads = heads[at];
    l.kv_heads = kv_heads[at];
    l.head_dim = l.sliding ? dim_sliding : dim;
    l.ffn = ffn[at];
    if (l.heads % l.kv_heads)
      keys.fail("attention.head_count_kv",
                format("is %lld in layer %d, which does not divide its "
                       "%lld heads",
                       static_cast<long long>(l.kv_heads), i, static_cast<long long>(l.heads)));
    l.kv_source = c.drafter ? -1 : i < c.kv_layers ? i : c.last_kv_layer(l.sliding);
    if (!c.drafter && l.kv_source < 0)
      keys.fail("attention.shared_kv_layers",
                format("leaves layer %d without a %s layer to share K/V with", i,
                       l.sliding ? "sliding" : "full-attention"));
    if (!c.drafter && c.layers[static_cast<size_t>(l.kv_source)].kv_heads != l.kv_heads)
      keys.fail(
          "attention.head_count_kv",
          format("differs between layer %d and layer %d, whose K/V it shares", i, l.kv_source));
  }
}

void read_experts(const KeyReader& keys, Config& c) {
  c.experts = keys.integer_or("expert_count", 0, 4096, 0);
  if (c.experts == 0) return;
  c.experts_used = keys.integer("expert_used_count", 1, c.experts);
  c.expert_ffn = keys.integer("expert_feed_forward_length", 1, kMaxWidth);
}

}  // namespace

int Config::last_kv_layer(bool sliding) const {
  for (int i = kv_layers - 1; i >= 0; --i)
    if (layers[static_cast<size_t>(i)].sliding == sliding) return i;
  return -1;
}

bool is_target_arch(const std::string& arch) { return arch == "gemma4"; }

bool is_drafter_arch(const std::string& arch) {
  return arch == "gemma4-assistant" || arch == "gemma4_assistant" || arch == "gemma4_mtp";
}

Config read_config(const GgufFile& file) {
  const auto arch = file.get_string("general.architecture");
  if (!arch)
    throw Error(ErrorKind::kFile, format("%s: general.architecture is missing; this GGUF does not "
                                         "say what model it holds",
                                         file.quoted_path().c_str()));
  if (!is_target_arch(*arch) && !is_drafter_arch(*arch))
    throw Error(ErrorKind::kModel,
                format("%s: architecture %s is not one of gemma4 (target) or gemma4-assistant "
                       "(drafter), the ones this runtime runs",
                       file.quoted_path().c_str(), quoted(*arch).c_str()));
  Config c;
  c.arch = *arch;
  c.drafter = is_drafter_arch(*arch);
  const KeyReader keys(file, *arch);
  c.hidden = keys.integer("embedding_length", 1, kMaxWidth);
  // llama.cpp's key, then those of other converters.
  c.backbone = c.drafter ? keys.integer_of({"embedding_length_out", "n_embd_backbone",
                                            "backbone_embedding_length"},
                                           1, kMaxWidth)
                         : c.hidden;
  c.context = keys.integer("context_length", 1, kMaxContext);
  c.window = keys.integer("attention.sliding_window", 1, kMaxContext);
  c.per_layer = keys.integer_or("embedding_length_per_layer_input", 0, 65536, 0);
  c.eps = static_cast<float>(keys.number_or("attention.layer_norm_rms_epsilon", 0, 1, 1e-6));
  c.softcap = static_cast<float>(keys.number_or("final_logit_softcapping", 0, 1e6, 0));
  c.rope_base = keys.number_or("rope.freq_base", 1, 1e12, 1e6);
  c.rope_base_sliding = keys.number_or("rope.freq_base_swa", 1, 1e12, 1e4);
  read_layers(keys, c);
  if (!c.drafter) read_experts(keys, c);
  if (c.drafter && (c.per_layer || keys.integer_or("expert_count", 0, 4096, 0)))
    throw Error(ErrorKind::kFile,
                format("%s: a drafter has neither per-layer embeddings nor experts",
                       file.quoted_path().c_str()));
  return c;
}

void check_pair(const Config& target, const Config& drafter) {
  const auto fail = [](const std::string& how) {
    throw Error(ErrorKind::kModel,
                "the drafter does not fit the target: " + how + "; use the drafter made for it");
  };
  if (drafter.backbone != target.hidden)
    fail(format("it expects a target of hidden size %lld, this one has %lld",
                static_cast<long long>(drafter.backbone), static_cast<long long>(target.hidden)));
  if (drafter.vocab != target.vocab)
    fail(format("it knows %lld tokens, the target %lld", static_cast<long long>(drafter.vocab),
                static_cast<long long>(target.vocab)));
  for (int i = 0; i < drafter.n_layers(); ++i) {
    const LayerConfig& l = drafter.layers[static_cast<size_t>(i)];
    const char* type = l.sliding ? "sliding" : "full-attention";
    const int source = target.last_kv_layer(l.sliding);
    if (source < 0)
      fail(format("its layer %d reads K/V of a %s layer and the target has none", i, type));
    const LayerConfig& t = target.layers[static_cast<size_t>(source)];
    if (l.head_dim != t.head_dim)
      fail(format("its %s heads are %lld wide, the target's %lld", type,
                  static_cast<long long>(l.head_dim), static_cast<long long>(t.head_dim)));
    if (l.heads % t.kv_heads)
      fail(format("its %lld heads of layer %d cannot share the target's %lld K/V heads",
                  static_cast<long long>(l.heads), i, static_cast<long long>(t.kv_heads)));
  }
}

}  // namespace gemtp
