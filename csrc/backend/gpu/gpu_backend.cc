#include "backend/gpu/gpu_backend.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_matmul.h"
#include "backend/cpu/packed_form.h"
#include "backend/gpu/format_names.h"
#include "backend/gpu/gpu_objects.h"
#include "backend/gpu/launches.h"
#include "backend/gpu/products.h"
#include "backend/gpu/quantized_forms.h"

namespace gemtp {
namespace {

using namespace gpu;

// Scores that a launch of attention keeps at most (32 MB): longer passes go in parts.
constexpr int64_t kMostScores = 8 << 20;

// Passes of more rows, parts of a prompt, are not recorded: what launching costs does not matter.
constexpr int64_t kMostRecorded = 32;

class GpuBackend : public Backend {
 public:
  GpuBackend(std::shared_ptr<GpuDevice> device, std::unique_ptr<Backend> host)
      : device_(std::move(device)), host_(std::move(host)), launches_(device_) {}

  std::string device() const override { return device_->name(); }
  std::string isa() const override { return host_->isa(); }
  std::string identity() const override { return device_->identity(); }
  Backend& host() override { return *host_; }
  bool own_memory() const override { return true; }
  uint64_t available() const override {  // 1 if nothing is free, which is not unknown
    return static_cast<uint64_t>(std::max<int64_t>(1, device_->memory().free));
  }
  int threads() const override { return host_->threads(); }
  // A recording is made as a whole.
  bool stopped() const override { return stop_ && *stop_ && !recording_; }

  Buffer alloc(int64_t n) override {
    auto memory = reserve_zeros(device_, n * static_cast<int64_t>(sizeof(float)));
    return {Device<float>(static_cast<float*>(memory.get())), memory};
  }

  std::unique_ptr<Matrix> load_matrix(const WeightSource& source, const std::vector<int32_t>* rows,
                                      const LoadProgress& progress) override {
    const std::unique_ptr<Matrix> packed = host_->load_matrix(source, rows, progress);
    const auto& from = static_cast<const CpuMatrix&>(*packed);
    const PackedForm& form = packed_form(source.type);
    auto m = std::make_unique<GpuMatrix>();
    static_cast<Matrix&>(*m) = from;
    m->format = form.format;
    m->memory = reserve(device_, m->bytes);
    device_->write(address(m->memory), from.data.get(), m->bytes);
    m->packed.tiles = Global<const uint8_t>(address(m->memory));
    m->packed.tile_bytes = from.tile_bytes;
    m->packed.rows = narrow(m->rows);
    if (form.table) std::memcpy(&m->packed.table, form.table, sizeof m->packed.table);
    return m;
  }

  AlignedBytes read(const WeightSource& source) override { return host_->read(source); }

  std::unique_ptr<KvLayer> make_kv(int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                   bool f16) override {
    auto kv = std::make_unique<GpuKv>(device_);
    kv->f16 = f16;
    kv->kv_heads = kv_heads;
    kv->head_dim = head_dim;
    kv->capacity = capacity;
    kv->allocate();
    return kv;
  }

  std::unique_ptr<Routing> make_routing(const RoutingSizes& s) override {
    auto r = std::make_unique<GpuRouting>();
    r->sizes = s;
    const int64_t slots = s.rows * s.used, room = slots + QuantizedForms::kRoom;
    Pieces pieces;
    const auto expert = pieces.add<int32_t>(slots), place = pieces.add<int32_t>(slots);
    const auto row = pieces.add<int32_t>(slots);
    const auto weight = pieces.add<float>(slots);
    const auto list = pieces.add<MatrixRows>(s.experts);
    // An element takes 4 bytes, or at most 4.5 quantized.
    const auto in = pieces.add<uint8_t>(room * s.hidden * 5);
    const auto gated = pieces.add<uint8_t>(room * s.ffn * 5);
    const auto floats = pieces.add<float>(slots * s.ffn), out = pieces.add<float>(slots * s.hidden);
    r->memory = reserve_zeros(device_, pieces.bytes());
    const uint64_t base = address(r->memory);
    r->route.slot_expert = Global<int32_t>(base + expert);
    r->route.slot_place = Global<int32_t>(base + place);
    r->route.place_row = Global<int32_t>(base + row);
    r->route.slot_weight = Global<float>(base + weight);
    r->route.list = Global<MatrixRows>(base + list);
    r->in = base + in;
    r->gated = base + gated;
    r->gated_floats = Global<float>(base + floats);
    r->out = Global<float>(base + out);
    return r;
  }

  std::unique_ptr<MatrixSet> make_set(std::vector<MatrixPtr> matrices) override {
    std::vector<SetMember> members;
    for (const MatrixPtr& m : matrices) members.push_back({of(m.get()).packed.tiles, m->scale});
    auto set = std::make_unique<GpuMatrixSet>(std::move(matrices));
    const auto bytes = static_cast<int64_t>(members.size() * sizeof(SetMember));
    set->memory = reserve(device_, bytes);
    device_->write(address(set->memory), members.data(), bytes);
    return set;
  }

  std::unique_ptr<Recordings> make_recordings() override {
    return std::make_unique<GpuRecordings>();
  }

  void wait() override { device_->wait(); }

  void run(Recordings& recordings, PassRows& rows, std::span<const int64_t> shape,
           const std::function<void()>& body) override {
    place(rows);
    launches_.forget_forms();
    if (observed() || shape.empty() || rows.count > kMostRecorded) {
      body();
    } else {
      run_recorded(static_cast<GpuRecordings&>(recordings), shape_of(rows, shape), body);
    }
    launches_.forget_forms();
    launches_.release_outgrown();
  }

  void send(PassRows& rows) override {
    place(rows);
    Backend::send(rows.runs, 0, rows.n_runs);
    Backend::send(rows.sequence, 0, rows.count);
    Backend::send(rows.positions, 0, rows.count);
    for (const RowsOfLayers* l : {&rows.full, &rows.sliding}) {
      Backend::send(l->spans, 0, rows.count);
      Backend::send(l->angles.cos, 0, rows.count * l->angles.half);
      Backend::send(l->angles.sin, 0, rows.count * l->angles.half);
    }
    const GpuRows& own = sent_of(rows);
    Backend::send(own.kv, 0, own.kv.size());
  }

  void embed(const WeightSource& table, const PassRows& rows, int64_t first, int64_t m, int64_t col,
             int64_t n, float scale, float* y) override {
    host_->embed(table, rows, first, m, col, n, scale, y);
  }

  void head(const Matrix& w, Device<const float> x, int64_t m, float cap,
            std::span<const Device<float>> logits, Device<BestLogit> best) override {
    const int64_t n = w.rows;
    const Global<float> all = launches_.scratch<float>(Room::kLogits, m * n);
    const Device<float> y(reinterpret_cast<float*>(all.address));
    matmul({{&w, x, w.cols, m, y, n}});
    static_assert(sizeof(Best) == sizeof(BestLogit));
    best_of(all, m, n, cap, Global<Best>(number(best)));
    for (int64_t i = 0; i < m; ++i)
      if (const Device<float> to = logits[static_cast<size_t>(i)])
        copy(Device<const float>(y + i * n), n, to);
  }

  void copy(Device<const float> from, int64_t n, Device<float> to) override {
    launches_.elements("copy",
                       {Global<float>(number(from)), {}, 0, 0, launches_.written(to, n), {}}, n);
  }

  void norm(Device<const float> x, int64_t m, int64_t n, float eps,
            const std::vector<NormResult>& results) override {
    NormArguments a{};
    a.n = narrow(n);
    a.eps = eps;
    a.residual = global(x);
    a.after = 1.0f;
    give_norms(results, m, n, a.output);
    launches_.launch("norm", m, 1, a);
  }

  void add_branch(const Branch& branch, int64_t m, int64_t n, float eps, Device<float> x,
                  const std::vector<NormResult>& results) override {
    NormArguments a{};
    a.n = narrow(n);
    a.eps = eps;
    a.branch = global(Device<const float>(branch.y));
    a.weight = global(branch.weight);
    a.before = branch.before;
    a.after = branch.after;
    a.residual = a.y = launches_.written(x, m * n);
    give_norms(results, m, n, a.output);
    // Without norms of its own the new x is multiplied as it is.
    if (results.empty()) a.output[0] = {{}, 1.0f, 1, {}, launches_.add_form(x, m, n)};
    launches_.launch("norm", m, 1, a);
  }

  void softcap(Device<float> x, int64_t n, float cap) override {
    const Global<float> y = launches_.written(x, n);
    launches_.elements("softcap", {y, {}, cap, 0, y, {}}, n);
  }

  void route(Device<const float> scores, Device<const float> scale, int64_t m,
             Routing& to) override {
    auto& r = static_cast<GpuRouting&>(to);
    r.route.scores = global(scores);
    r.route.per_expert_scale = global(scale);
    r.route.m = narrow(m);
    r.route.experts = narrow(r.sizes.experts);
    r.route.used = narrow(r.sizes.used);
    launches_.launch("route", 1, 1, r.route);
  }

  void expert_feed_forward(const ExpertMatrices& w, Device<const float> x, int64_t m,
                           Routing& routing, Device<float> y) override {
    auto& r = static_cast<GpuRouting&>(routing);
    const int64_t h = r.sizes.hidden, places = m * r.sizes.used;
    products_.gather_input(r, first_of(*w.gate), x, m);
    if (observed()) {
      GatherArguments floats{};
      floats.x = global(x);
      floats.y = launches_.scratch<float>(Room::kUps, places * h);
      products_.gather(r, floats, m);
      observe_places(r, {w.gate.get(), w.up.get()}, floats.y, h);
    }
    products_.multiply_gated(r, w, m);
    if (observed()) observe_places(r, {w.down.get()}, r.gated_floats, r.sizes.ffn);
    products_.multiply_down(r, *w.down, m);

    WeightedSumArguments sum{};
    sum.x = r.out;
    sum.places = r.route.slot_place;
    sum.weights = r.route.slot_weight;
    sum.terms = narrow(r.sizes.used);
    sum.n = narrow(h);
    sum.y = launches_.written(y, m * h);
    launches_.launch("weighted_sum", parts_of(h, 256), m, sum);
  }

  void cluster_head(const ClusterMatrices& w, Device<const float> scores, int64_t top,
                    Device<const float> x, Device<int32_t> ids, Device<float> logits) override {
    const int64_t each = first_of(*w.clusters).rows;
    TopArguments t{global(scores), narrow(w.clusters->size()), narrow(top),
                   launches_.scratch<MatrixRows>(Room::kChosen, top)};
    launches_.launch("top_clusters", parts_of(t.n, 256), 1, t);
    const auto found = launches_.scratch<float>(Room::kLogits, top * each);
    products_.multiply_listed(*w.clusters, x, t.chosen, top, found);
    CandidatesArguments c{t.chosen,
                          global(Device<const int32_t>(w.tokens.device())),
                          found,
                          narrow(top),
                          narrow(each),
                          Global<int32_t>(number(ids)),
                          launches_.written(logits, top * each)};
    launches_.launch("sort_candidates", parts_of(top * each, 256), 1, c);
  }

  // Not those that embed() does not flush before it scales them.
  bool embeds_best(const Matrix& table) const override {
    const gemtp_format format = of(&table).format;
    return of(&table).quantized() && format != GEMTP_MXFP4 && table.scale == 1.0f;
  }
  void embed_best(const Matrix& table, float scale, Device<const float> logits, int64_t n,
                  Device<const int32_t> ids, Device<int32_t> id, Device<float> y) override {
    const GpuMatrix& matrix = of(&table);
    EmbedArguments a{};
    a.matrix = packed(matrix);
    a.k = narrow(matrix.cols);
    a.ids = global(ids);
    a.scale = scale;
    a.y = launches_.written(y, matrix.cols);
    a.best =
        best_of(Global<float>(number(logits)), 1, n, 0, launches_.scratch<Best>(Room::kBest, 1));
    a.id = Global<int32_t>(number(id));
    launches_.launch(std::string("embed_") + kFormatNames[matrix.format], parts_of(a.k, 256), 1, a);
  }

  void finish_heads(const PassRows& rows, const RowsOfLayers& of_type, int layer, int64_t first,
                    int64_t m, int64_t keep, const NewHeads& h) override {
    const GpuKv& kv = kv_of(rows, layer);
    const int64_t row = h.k ? first : first + m - keep, n = h.k ? m : keep;
    HeadsArguments a{};
    const int64_t at = row * of_type.angles.half;
    a.cos = global(Device<const float>(of_type.angles.cos.device() + at));
    a.sin = global(Device<const float>(of_type.angles.sin.device() + at));
    a.positions = global(Device<const int32_t>(rows.positions.device() + row));
    a.sequence = global(Device<const int32_t>(rows.sequence.device() + row));
    a.kv = places_of(rows, layer);
    a.d = narrow(h.d);
    a.eps = h.eps;
    if (keep) {
      a.q = launches_.written(h.q, keep * h.heads * h.d);
      a.q_weight = global(h.q_weight);
      a.heads = narrow(h.heads);
      a.q_skip = narrow(n - keep);
    }
    if (h.k) {
      a.k = global(Device<const float>(h.k));
      a.v = global(Device<const float>(h.v_is_k ? h.k : h.v));
      a.k_weight = global(h.k_weight);
      a.kv_heads = narrow(kv.kv_heads);
    }
    launches_.launch(std::string("heads_") + kv.type(), a.heads + 2 * a.kv_heads, n, a);
  }

  void attention(const PassRows& rows, const RowsOfLayers& of_type, int layer, int64_t first,
                 int64_t m, Device<const float> q, int64_t heads, Device<float> out) override {
    const GpuKv& kv = kv_of(rows, layer);
    const int64_t width = heads * kv.head_dim;
    AttentionArguments a{};
    a.kv = places_of(rows, layer);
    a.heads = narrow(heads);
    a.kv_heads = narrow(kv.kv_heads);
    a.d = narrow(kv.head_dim);
    const GpuRows& sent = sent_of(rows);
    a.p_stride = narrow(&of_type == &rows.full ? sent.full_stride : sent.sliding_stride);
    const Global<float> result = launches_.written(out, m * width);
    const QuantizedRows quantized =
        kv.head_dim % 32 == 0 ? launches_.add_form(out, m, width) : QuantizedRows();
    const int64_t most = std::max<int64_t>(1, kMostScores / (heads * a.p_stride));
    for (int64_t at = 0; at < m; at += most) {
      a.m = narrow(std::min(most, m - at));
      a.first_row = narrow(first + at);
      a.q = global(q + at * width);
      a.spans = Global<const Span>(number(of_type.spans.device() + a.first_row));
      a.out = result + at * width;
      if (quantized) a.quantized = quantized + at * width / 32 * launches_.form_block_bytes();
      attend(a, rows, kv.type());
    }
  }

 private:
  // Sizes of arrays in one piece of memory.
  class Pieces {
   public:
    template <class T>
    uint64_t add(int64_t n) {
      const uint64_t at = size_;
      size_ += (static_cast<uint64_t>(n) * sizeof(T) + 255) / 256 * 256;
      return at;
    }
    int64_t bytes() const { return static_cast<int64_t>(size_); }

   private:
    uint64_t size_ = 0;
  };

  void give_norms(const std::vector<NormResult>& results, int64_t m, int64_t n,
                  NormOutput (&to)[3]) {
    GEMTP_ASSERT(results.size() <= 3);
    for (size_t i = 0; i < results.size(); ++i) {
      const NormResult& r = results[i];
      to[i] = {global(r.weight), r.scale, 1, launches_.written(r.y, m * n),
               launches_.add_form(r.y, m, n)};
    }
  }

  // The best of each of m rows of n logits, which are capped in place if cap is not 0.
  Global<Best> best_of(Global<float> logits, int64_t m, int64_t n, float cap, Global<Best> best) {
    const int64_t parts = std::clamp<int64_t>(n / 4096, 1, 64);
    HeadArguments a{};
    a.logits = logits;
    a.n = narrow(n);
    a.parts = narrow(parts);
    a.cap = cap;
    a.part_best = launches_.scratch<Best>(Room::kPartBest, m * parts);
    a.best = best;
    launches_.launch("head_softcap", parts, m, a);
    launches_.launch("best_of_parts", 1, m, a);
    return best;
  }

  // ---- passes ----

  // Where the K/V of the rows lie, and how far their spans reach. Repeated passes need it before
  // run() looks for a recording, rows without a pass when they are sent.
  void place(PassRows& rows) {
    const auto layers = static_cast<int64_t>(rows.kv.front().size());
    const auto sequences = static_cast<int64_t>(rows.kv.size());
    auto* own = static_cast<GpuRows*>(rows.sent.get());
    if (!own || own->layers < layers || own->sequences < sequences) {
      auto made = std::make_unique<GpuRows>();
      made->layers = layers;
      made->sequences = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(sequences)));
      made->kv = mirror<KvPlace>(layers * made->sequences);
      own = made.get();
      rows.sent = std::move(made);
    }
    for (size_t s = 0; s < rows.kv.size(); ++s)
      for (size_t l = 0; l < rows.kv[s].size(); ++l)
        if (rows.kv[s][l])  // else the layer lies on the host
          own->kv[static_cast<int64_t>(l) * own->sequences + static_cast<int64_t>(s)] =
              static_cast<const GpuKv&>(*rows.kv[s][l]).place();
    own->full_stride = score_stride(rows, rows.full.spans);
    own->sliding_stride = score_stride(rows, rows.sliding.spans);
  }

  static const GpuRows& sent_of(const PassRows& rows) {
    return static_cast<const GpuRows&>(*rows.sent);
  }
  static const GpuKv& kv_of(const PassRows& rows, int layer) {
    return static_cast<const GpuKv&>(layer_of(rows, layer, rows.runs[0]));
  }
  static Global<const KvPlace> places_of(const PassRows& rows, int layer) {
    const GpuRows& sent = sent_of(rows);
    return global(Device<const KvPlace>(sent.kv.device() + layer * sent.sequences));
  }

  // Positions that a tile's queries attend to at most, by whole blocks, in few steps: passes of
  // nearly the same length have one shape.
  static int64_t score_stride(const PassRows& rows, const Mirror<AttentionSpan>& spans) {
    int64_t longest = 0;
    for (int64_t i = 0; i < rows.n_runs; ++i) {
      const int64_t begin = rows.runs[i].first, end = begin + rows.runs[i].count;
      for (int64_t row = begin; row < end; ++row) {
        int64_t first = spans[row].first, last = spans[row].last;
        for (int64_t other = row; other < std::min(row + 8, end); ++other) {
          first = std::min<int64_t>(first, spans[other].first);
          last = std::max<int64_t>(last, spans[other].last);
        }
        longest = std::max(longest, last / 128 * 128 + 128 - first / 128 * 128);
      }
    }
    const auto step = std::max<int64_t>(
        128, static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(longest))) / 4);
    return parts_of(longest, step) * step;
  }

  // All that tells a pass from others of the same owner.
  static std::vector<int64_t> shape_of(const PassRows& rows, std::span<const int64_t> shape) {
    const GpuRows& sent = sent_of(rows);
    std::vector<int64_t> out(shape.begin(), shape.end());
    out.insert(out.end(), {rows.count, sent.full_stride, sent.sliding_stride});
    for (int64_t i = 0; i < rows.n_runs; ++i)
      out.insert(out.end(), {rows.runs[i].first, rows.runs[i].count, rows.runs[i].sequence});
    sent.kv.append_to(out);
    return out;
  }

  // A shape that is seen a second time is recorded.
  void run_recorded(GpuRecordings& recordings, const std::vector<int64_t>& shape,
                    const std::function<void()>& body) {
    bool known = true;
    GpuRecordings::Entry& entry = recordings.of(shape, &known);
    if (!known) {
      body();
      return;
    }
    if (!entry.recording) {
      recording_ = true;
      device_->begin_recording();
      try {
        body();
      } catch (...) {
        recording_ = false;
        device_->end_recording();
        throw;
      }
      recording_ = false;
      entry.recording = device_->end_recording();
      entry.memory = launches_.take_memory();
    }
    device_->repeat(*entry.recording);
  }

  void multiply(const std::vector<MatmulJob>& jobs) override { products_.multiply(jobs); }
  void multiply_gated(const std::vector<GatedJob>& jobs) override {
    products_.multiply_gated(jobs);
  }

  // ---- attention ----

  void attend(AttentionArguments a, const PassRows& rows, const std::string& type) {
    const int64_t group = a.heads / a.kv_heads, first = a.first_row;
    int64_t run = 0;
    while (rows.runs[run].first + rows.runs[run].count <= first) ++run;
    a.runs = Global<const Run>(number(rows.runs.device() + run));
    const int64_t tile = a.m * group <= 2 ? 2 : 8;
    for_each_run(rows, first, a.m, [&](const RowRun& part) {
      a.tiles += narrow(parts_of(part.count * group, tile));
    });
    a.p = launches_.scratch<float>(Room::kScores, a.m * a.heads * a.p_stride);
    a.maxima = launches_.scratch<float>(Room::kMaxima, a.m * a.heads * a.p_stride / 128);
    const std::string kind = "_" + type + "_" + std::to_string(tile);
    const int64_t tiles = a.kv_heads * a.tiles;
    launches_.launch("attention_scores" + kind, a.p_stride / 128, tiles, a);
    launches_.launch("attention_values" + kind, parts_of(a.d, 32), tiles, a);
  }

  // ---- observed products ----

  void observe_places(const GpuRouting& r, const std::vector<const MatrixSet*>& sets,
                      Global<float> x, int64_t width) {
    std::vector<MatrixRows> list(static_cast<size_t>(r.sizes.experts));
    device_->read(r.route.list.address, list.data(),
                  static_cast<int64_t>(list.size() * sizeof list[0]));
    for (const MatrixRows& e : list)
      for (const MatrixSet* set : sets)
        if (e.count)
          observe_product(
              (*set)[e.matrix],
              Device<const float>(reinterpret_cast<const float*>((x + e.first * width).address)),
              width, e.count);
  }

  // ---- memory ----

  MirroredBytes mirrored(int64_t bytes) override {
    const int64_t n = std::max<int64_t>(bytes, 1);
    std::shared_ptr<void> device = reserve_zeros(device_, n);
    std::shared_ptr<void> host(device_->allocate_host(n),
                               [of = device_](void* p) { of->release_host(p); });
    std::memset(host.get(), 0, static_cast<size_t>(n));
    MirroredBytes out{host.get(), device.get(), nullptr};
    using Both = std::pair<std::shared_ptr<void>, std::shared_ptr<void>>;
    out.memory = std::make_shared<Both>(std::move(host), std::move(device));
    return out;
  }
  void write_bytes(const void* host, void* to, int64_t bytes) override {
    forget(to, bytes);
    device_->write(reinterpret_cast<uint64_t>(to), host, bytes);
  }
  void read_bytes(const void* from, void* host, int64_t bytes) override {
    device_->read(reinterpret_cast<uint64_t>(from), host, bytes);
  }
  void send_bytes(const void* host, void* to, int64_t bytes) override {
    forget(to, bytes);
    device_->send(reinterpret_cast<uint64_t>(to), host, bytes);
  }
  void fetch_bytes(const void* from, void* host, int64_t bytes) override {
    device_->fetch(reinterpret_cast<uint64_t>(from), host, bytes);
  }
  void forget(void* at, int64_t bytes) {
    launches_.forget_form(Device<const float>(static_cast<const float*>(at)), parts_of(bytes, 4));
  }
  void begin_pass(const std::atomic<bool>* stop) override { stop_ = stop; }
  void end_pass() override {
    stop_ = nullptr;
    try {
      device_->wait();  // for what a pass that failed has enqueued
    } catch (const Error&) {
    }
  }

  const std::shared_ptr<GpuDevice> device_;
  const std::unique_ptr<Backend> host_;
  const std::atomic<bool>* stop_ = nullptr;
  bool recording_ = false;
  Launches launches_;
  Products products_{launches_};
};

}  // namespace

int64_t gpu_scratch_bytes(int64_t rows, int64_t cols, int64_t wanted, int64_t vocab) {
  const int64_t form = (rows + QuantizedForms::kRoom) * (cols / 32) * QuantizedForms::kMostBytes;
  const int64_t scores = kMostScores * 4 + kMostScores * 4 / 128;
  return QuantizedForms::kForms * form + scores + (rows * cols + wanted * vocab) * 4;
}

std::unique_ptr<Backend> make_gpu_backend(std::shared_ptr<GpuDevice> device,
                                          std::unique_ptr<Backend> host) {
  return std::make_unique<GpuBackend>(std::move(device), std::move(host));
}

}  // namespace gemtp
