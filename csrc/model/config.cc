#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/error.h"
#include "model/ordered_head.h"

namespace gemtp {
namespace {

// Reads keys below "{arch}." with bounds; every failure names the file and the key.
class KeyReader {
 public:
  KeyReader(const GgufFile& file, std::string arch, Problems* problems)
      : file_(file), arch_(std::move(arch)), problems_(problems) {}

  [[noreturn]] void fail(const std::string& key, const std::string& what) const {
    throw Error(ErrorKind::kFile, format("%s: %s.%s %s", file_.quoted_path().c_str(), arch_.c_str(),
                                         key.c_str(), what.c_str()));
  }

  template <class Part>
  auto attempt(const Part& part) const {
    return gemtp::attempt(problems_, part);
  }

  std::string full(const std::string& key) const { return arch_ + "." + key; }
  bool has(const std::string& key) const { return file_.has(full(key)); }

  int64_t integer(const std::string& key, int64_t low, int64_t high) const {
    return attempt([&] {
      const auto v = file_.get_int(full(key));
      if (!v) fail(key, "is missing; a model file must have it");
      return bounded(key, *v, low, high);
    });
  }
  int64_t integer_or(const std::string& key, int64_t low, int64_t high, int64_t fallback) const {
    return has(key) ? integer(key, low, high) : fallback;
  }
  /// Reads the first of these keys that the file has.
  int64_t integer_of(std::initializer_list<const char*> keys, int64_t low, int64_t high) const {
    for (const char* key : keys)
      if (has(key)) return integer(key, low, high);
    return integer(*keys.begin(), low, high);
  }
  double number_or(const std::string& key, double low, double high, double fallback) const {
    return attempt([&] {
      const auto v = file_.get_float(full(key));
      if (!v || *v == fallback) return fallback;
      if (!(*v >= low && *v <= high)) fail(key, format("is %g, outside [%g, %g]", *v, low, high));
      return *v;
    });
  }
  /// Reads a scalar for all layers, or an array with one entry per layer.
  std::vector<int64_t> per_layer(const std::string& key, int64_t n, int64_t low,
                                 int64_t high) const {
    return attempt([&] {
      const Value* v = file_.find(full(key));
      if (!v) fail(key, "is missing; a model file must have it");
      const auto entries = static_cast<size_t>(n);
      std::vector<int64_t> values = v->type == ValueType::kArray
                                        ? *file_.get_ints(full(key))
                                        : std::vector<int64_t>(entries, *file_.get_int(full(key)));
      if (values.size() != entries)
        fail(key,
             format("has %zu entries for %lld layers", values.size(), static_cast<long long>(n)));
      for (int64_t x : values) bounded(key, x, low, high);
      return values;
    });
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
  Problems* problems_;
};

// A key that other architectures use and Gemma 4 does not. It must be absent, or have a value that
// changes nothing.
struct NeutralKey {
  const char* key;
  std::vector<double> numbers;  // such values, also for each element of an array
  std::vector<std::string> texts = {};
};

const std::vector<NeutralKey>& neutral_keys() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  static const std::vector<NeutralKey> keys{
      {"rope.scaling.type", {}, {"", "none", "default", "linear"}},  // linear: by factor
      {"rope.scaling.factor", {0, 1}},
      {"rope.scaling.alpha", {0, 1}},
      {"rope.scaling.attn_factor", {1}},
      {"rope.scaling.yarn_attn_factor", {1}},
      {"rope.scaling.yarn_ext_factor", {0, -1}},
      {"rope.scaling.yarn_log_multiplier", {0}},
      {"rope.scale_linear", {0, 1}},
      {"rope.freq_scale", {1}},
      {"rope.partial_rotary_factor", {0.25}},  // also expressed by rope_freqs
      {"rope.dimension_sections", {0}},
      {"attn_logit_softcapping", {0}},
      {"router_logit_softcapping", {0}},
      {"attention.logit_softcapping", {0}},
      {"attention.scale", {1}},
      {"attention.query_pre_attn_scalar", {1}},
      {"attention.output_scale", {1}},
      {"attention.value_scale", {1}},
      {"attention.temperature_scale", {0}},
      {"attention.temperature_length", {0}},
      {"attention.clamp_kqv", {0}},
      {"attention.max_alibi_bias", {0}},
      {"attention.causal", {1}},
      {"attention.use_bidirectional", {0}, {"vision"}},  // "vision": between the tokens of an image
      {"attention.chunk_size", {0}},
      {"attention.relative_buckets_count", {0}},
      {"attention.q_lora_rank", {0}},
      {"attention.kv_lora_rank", {0}},
      {"attention.key_length_mla", {0}},
      {"attention.value_length_mla", {0}},
      {"use_bidirectional_attention", {0}, {"vision"}},
      {"hidden_activation", {}, {"gelu_pytorch_tanh"}},
      {"hidden_act", {}, {"gelu_pytorch_tanh"}},
      {"activation_sparsity_scale", {0, -kInfinity}},  // standard deviations above the mean
      {"altup.active_idx", {0}},
      {"altup.num_inputs", {0, 1}},
      {"laurel_rank", {0}},
      {"logit_scale", {0, 1}},
      {"residual_scale", {0, 1}},
      {"embedding_scale", {0, 1}},
      {"use_parallel_residual", {0}},
      {"rescale_every_n_layers", {0}},
      {"swin_norm", {0}},
      {"pooling_type", {0}},
      {"swiglu_clamp_exp", {0}},
      {"swiglu_clamp_shexp", {0}},
      {"n_deepstack_layers", {0}},
      {"decoder_block_count", {0}},
      {"expert_gating_func", {0, 1}},  // unspecified, softmax
      {"expert_weights_scale", {0, 1}},
      {"expert_weights_norm", {1}},
      {"expert_shared_count", {0}},
      {"expert_shared_feed_forward_length", {0}},
      {"expert_chunk_feed_forward_length", {0}},
      {"expert_group_count", {0, 1}},
      {"expert_group_used_count", {0, 1}},
      {"expert_group_scale", {0, 1}},
      {"experts_per_group", {0, 1}},
      {"moe_every_n_layers", {0, 1}},
      {"moe_latent_size", {0}},
      {"interleave_moe_layer_step", {0, 1}},
      {"leading_dense_block_count", {0}},
  };
  return keys;
}

// Converts a value of any scalar type but text; nullopt for an array.
std::optional<double> as_number(const GgufFile& file, const std::string& key, const Value& v) {
  switch (v.type) {
    case ValueType::kArray:
    case ValueType::kString:
      return std::nullopt;
    case ValueType::kFloat32:
    case ValueType::kFloat64:
      return file.get_float(key);
    case ValueType::kBool:
      return *file.get_bool(key) ? 1.0 : 0.0;
    case ValueType::kUint64:
      return static_cast<double>(*file.get_uint(key));
    default:
      return static_cast<double>(*file.get_int(key));
  }
}

bool is_neutral(const GgufFile& file, const std::string& key, const Value& v,
                const NeutralKey& rule) {
  const auto neutral = [&rule](double x) {
    return std::find(rule.numbers.begin(), rule.numbers.end(), x) != rule.numbers.end();
  };
  if (v.type == ValueType::kString)
    return std::find(rule.texts.begin(), rule.texts.end(), *file.get_string(key)) !=
           rule.texts.end();
  if (v.type != ValueType::kArray) return neutral(*as_number(file, key, v));
  if (v.element == ValueType::kArray || v.element == ValueType::kString ||
      v.element == ValueType::kFloat64)
    return v.count == 0;
  if (v.element == ValueType::kFloat32) {
    const std::vector<float> values = *file.get_floats(key);
    return std::all_of(values.begin(), values.end(), neutral);
  }
  const std::vector<int64_t> values = *file.get_ints(key);
  return std::all_of(values.begin(), values.end(),
                     [&](int64_t x) { return neutral(static_cast<double>(x)); });
}

void check_neutral_key(const GgufFile& file, const KeyReader& keys, const NeutralKey& rule) {
  const std::string key = keys.full(rule.key);
  const Value* v = file.find(key);
  if (!v || is_neutral(file, key, *v, rule)) return;
  const std::string value = v->type == ValueType::kArray ? "an array of other values"
                            : v->type == ValueType::kString
                                ? quoted(*file.get_string(key))
                                : format("%g", *as_number(file, key, *v));
  keys.fail(rule.key, format("is %s, which would change what is computed and is not of Gemma 4; "
                             "take another file of the model, or convert it again",
                             value.c_str()));
}

constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxContext = int64_t{1} << 24;

void check_layers(const KeyReader& keys, const Config& c) {
  const int n = c.n_layers();
  if (!c.drafter && c.kv_layers < 1)
    keys.fail("attention.shared_kv_layers",
              format("is %d of %d layers; a target must own the K/V of at least one",
                     n - c.kv_layers, n));
  for (int i = 0; i < n; ++i) {
    const LayerConfig& l = c.layers[static_cast<size_t>(i)];
    if (l.heads % l.kv_heads)
      keys.fail("attention.head_count_kv",
                format("is %lld in layer %d, which does not divide its %lld heads",
                       static_cast<long long>(l.kv_heads), i, static_cast<long long>(l.heads)));
    if (c.drafter) continue;
    if (l.kv_source < 0)
      keys.fail("attention.shared_kv_layers",
                format("leaves layer %d without a %s layer to share K/V with", i,
                       l.sliding ? "sliding" : "full-attention"));
    if (c.layers[static_cast<size_t>(l.kv_source)].kv_heads != l.kv_heads)
      keys.fail(
          "attention.head_count_kv",
          format("differs between layer %d and layer %d, whose K/V it shares", i, l.kv_source));
  }
}

void read_layers(const KeyReader& keys, Config& c) {
  const int64_t n = keys.integer("block_count", 1, kMaxLayers);
  if (n == 0) return;
  const auto ffn = keys.per_layer("feed_forward_length", n, 1, kMaxWidth);
  const auto heads = keys.per_layer("attention.head_count", n, 1, 1024);
  const auto kv_heads = keys.per_layer("attention.head_count_kv", n, 1, 1024);
  const auto sliding = keys.per_layer("attention.sliding_window_pattern", n, 0, 1);
  const int64_t dim = keys.integer("attention.key_length", 2, kMaxHeadDim);
  const int64_t dim_sliding = keys.integer_or("attention.key_length_swa", 2, kMaxHeadDim, dim);
  if (ffn.empty() || heads.empty() || kv_heads.empty() || sliding.empty() || !dim || !dim_sliding)
    return;
  keys.attempt([&] {
    for (const auto& [key, value] : {std::pair<const char*, int64_t>{"attention.value_length", dim},
                                     {"attention.value_length_swa", dim_sliding},
                                     {"rope.dimension_count", dim},
                                     {"rope.dimension_count_swa", dim_sliding}}) {
      const int64_t given = keys.integer_or(key, 1, kMaxHeadDim, value);
      if (given && given != value)
        keys.fail(key, format("is %lld; Gemma 4 has it equal to the key length, %lld",
                              static_cast<long long>(given), static_cast<long long>(value)));
    }
    if (dim % 2 || dim_sliding % 2) keys.fail("attention.key_length", "is odd; RoPE rotates pairs");
  });

  const int64_t shared = keys.integer_or("attention.shared_kv_layers", 0, n, 0);
  // A drafter owns no K/V, whatever count its file states; a target must own some.
  c.kv_layers = c.drafter ? 0 : static_cast<int>(n - shared);
  c.layers.resize(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) {
    LayerConfig& l = c.layers[static_cast<size_t>(i)];
    const auto at = static_cast<size_t>(i);
    l.sliding = sliding[at] != 0;
    l.heads = heads[at];
    l.kv_heads = kv_heads[at];
    l.head_dim = l.sliding ? dim_sliding : dim;
    l.ffn = ffn[at];
    l.kv_source = c.drafter ? -1 : i < c.kv_layers ? i : c.last_kv_layer(l.sliding);
  }
  keys.attempt([&] { check_layers(keys, c); });
}

void read_experts(const KeyReader& keys, Config& c) {
  c.experts = keys.integer_or("expert_count", 0, 4096, 0);
  if (c.experts == 0) return;
  c.experts_used = keys.integer("expert_used_count", 1, c.experts);
  c.expert_ffn = keys.integer("expert_feed_forward_length", 1, kMaxWidth);
}

// Reads the number of tokens from the rows of the embedding.
int64_t read_vocab(const GgufFile& file) {
  const auto fail = [&file](const std::string& what) {
    throw Error(ErrorKind::kFile, file.quoted_path() + ": " + what);
  };
  const Tensor* embedding = file.find_tensor("token_embd.weight");
  if (!embedding) fail("tensor token_embd.weight is missing; this file holds no model weights");
  if (embedding->shape.size() != 2)
    fail("tensor token_embd.weight has shape " + shape_text(embedding->shape) +
         ", not two dimensions");
  if (embedding->shape[1] > INT32_MAX)
    fail("token_embd.weight has more rows than token ids can count");
  return embedding->shape[1];
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

Config read_config(const GgufFile& file, Problems* problems) {
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
  const KeyReader keys(file, *arch, problems);
  for (const NeutralKey& rule : neutral_keys())
    keys.attempt([&] { check_neutral_key(file, keys, rule); });
  c.hidden = keys.integer("embedding_length", 1, kMaxWidth);
  // The key of llama.cpp, then those of other converters.
  c.backbone = c.drafter ? keys.integer_of({"embedding_length_out", "n_embd_backbone",
                                            "backbone_embedding_length"},
                                           1, kMaxWidth)
                         : c.hidden;
  c.context = keys.integer("context_length", 1, kMaxContext);
  // A drafter's queries attend only to positions before their own, so a window of one would be
  // empty.
  c.window = keys.integer("attention.sliding_window", c.drafter ? 2 : 1, kMaxContext);
  c.per_layer = keys.integer_or("embedding_length_per_layer_input", 0, 65536, 0);
  c.eps = static_cast<float>(keys.number_or("attention.layer_norm_rms_epsilon", 1e-30, 1, 1e-6));
  c.softcap = static_cast<float>(keys.number_or("final_logit_softcapping", 1e-6, 1e6, 0));
  c.rope_base = keys.number_or("rope.freq_base", 1, 1e12, 1e6);
  c.rope_base_sliding = keys.number_or("rope.freq_base_swa", 1, 1e12, 1e4);
  read_layers(keys, c);
  if (!c.drafter) read_experts(keys, c);
  keys.attempt([&] {
    if (c.drafter && (c.per_layer || keys.integer_or("expert_count", 0, 4096, 0)))
      throw Error(ErrorKind::kFile,
                  format("%s: a drafter has neither per-layer embeddings nor experts",
                         file.quoted_path().c_str()));
  });
  c.vocab = keys.attempt([&] { return read_vocab(file); });
  keys.attempt([&] {
    if (!c.drafter || !c.vocab) return;
    const OrderedHead head = read_ordered_head(file, c.arch, c.vocab);
    c.centroids = head.centroids;
    c.centroid_top_k = head.top_k;
  });
  return c;
}

Problems pair_problems(const Config& target, const Config& drafter) {
  Problems out;
  if (drafter.backbone != target.hidden)
    out.add(format("it expects a target of hidden size %lld, this one has %lld",
                   static_cast<long long>(drafter.backbone),
                   static_cast<long long>(target.hidden)));
  if (drafter.vocab != target.vocab)
    out.add(format("it knows %lld tokens, the target %lld", static_cast<long long>(drafter.vocab),
                   static_cast<long long>(target.vocab)));
  if (drafter.window > target.window)
    out.add(format("its sliding layers see %lld tokens, of which the target keeps %lld",
                   static_cast<long long>(drafter.window), static_cast<long long>(target.window)));
  for (int i = 0; i < drafter.n_layers(); ++i) {
    const LayerConfig& l = drafter.layers[static_cast<size_t>(i)];
    const char* type = l.sliding ? "sliding" : "full-attention";
    const int source = target.last_kv_layer(l.sliding);
    if (source < 0) {
      out.add(format("its layer %d reads K/V of a %s layer and the target has none", i, type));
      continue;
    }
    const LayerConfig& t = target.layers[static_cast<size_t>(source)];
    if (l.head_dim != t.head_dim)
      out.add(format("its %s heads are %lld wide, the target's %lld", type,
                     static_cast<long long>(l.head_dim), static_cast<long long>(t.head_dim)));
    if (l.heads % t.kv_heads)
      out.add(format("its %lld heads of layer %d cannot share the target's %lld K/V heads",
                     static_cast<long long>(l.heads), i, static_cast<long long>(t.kv_heads)));
  }
  return out;
}

}  // namespace gemtp
