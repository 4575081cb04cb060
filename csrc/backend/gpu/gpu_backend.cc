#include "backend/gpu/gpu_backend.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_matmul.h"
#include "backend/cpu/packed_form.h"
#include "backend/gpu/format_names.h"
#include "backend/gpu/gpu_objects.h"

namespace gemtp {
namespace {

using namespace gpu;

// Scores that a launch of attention keeps at most (32 MB): longer passes go in parts.
constexpr int64_t kMostScores = 8 << 20;

// Rows behind the last one that a panel may read.
constexpr int64_t kPanelRoom = 32;

class GpuBackend : public Backend {
 public:
  GpuBackend(std::unique_ptr<GpuDevice> device, std::unique_ptr<Backend> host)
      : device_(std::move(device)), host_(std::move(host)) {}

  std::string device() const override { return device_->name(); }
  std::string isa() const override { return host_->isa(); }
  int threads() const override { return host_->threads(); }
  bool stopped() const override { return stop_ && *stop_; }

  Buffer alloc(int64_t n) override {
    auto memory = zeros(n * static_cast<int64_t>(sizeof(float)));
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
    device_->write(reinterpret_cast<uint64_t>(m->memory.get()), from.data.get(), m->bytes);
    m->packed.tiles = Global<const uint8_t>(reinterpret_cast<uint64_t>(m->memory.get()));
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
    const int64_t slots = s.rows * s.used, room = slots + kPanelRoom;
    Pieces pieces(*this);
    const auto expert = pieces.add<int32_t>(slots), place = pieces.add<int32_t>(slots);
    const auto row = pieces.add<int32_t>(slots);
    const auto weight = pieces.add<float>(slots);
    const auto list = pieces.add<MatrixRows>(s.experts);
    const auto in = pieces.add<float>(room * s.hidden), gated = pieces.add<float>(room * s.ffn);
    const auto out = pieces.add<float>(room * s.hidden);
    r->memory = pieces.reserve();
    r->route.slot_expert = pieces.at(expert);
    r->route.slot_place = pieces.at(place);
    r->route.place_row = pieces.at(row);
    r->route.slot_weight = pieces.at(weight);
    r->route.list = pieces.at(list);
    r->in = pieces.at(in);
    r->gated = pieces.at(gated);
    r->out = pieces.at(out);
    return r;
  }

  void wait() override { device_->wait(); }

  void send(const PassRows& rows) override {
    Backend::send(rows.ids, 0, rows.count);
    Backend::send(rows.positions, 0, rows.count);
    for (const RowsOfLayers* l : {&rows.full, &rows.sliding}) {
      Backend::send(l->spans, 0, rows.count);
      Backend::send(l->angles.cos, 0, rows.count * l->angles.half);
      Backend::send(l->angles.sin, 0, rows.count * l->angles.half);
    }
  }

  void copy(Device<const float> from, int64_t n, Device<float> to) override {
    elements("copy", from, {}, 0, n, to);
  }

  void embed(const WeightSource& table, const PassRows& rows, int64_t first, int64_t m, int64_t col,
             int64_t n, float scale, Device<float> y) override {
    std::vector<float> values(static_cast<size_t>(m * n));
    host_->embed(table, rows, first, m, col, n, scale, Device<float>(values.data()));
    write(values.data(), m * n, y);
  }

  void head(const Matrix& w, Device<const float> x, int64_t m, float cap,
            std::span<const Device<float>> logits, Device<BestLogit> best) override {
    const int64_t n = w.rows, parts = std::clamp<int64_t>(n / 4096, 1, 64);
    const Global<float> all = scratch<float>(logits_, m * n);
    const Device<float> y(reinterpret_cast<float*>(all.address));
    matmul({{&w, x, w.cols, m, y, n}});
    HeadArguments a{};
    a.logits = all;
    a.n = narrow(n);
    a.parts = narrow(parts);
    a.cap = cap;
    a.part_best = scratch<Best>(best_, m * parts);
    static_assert(sizeof(Best) == sizeof(BestLogit));
    a.best = Global<Best>(reinterpret_cast<uint64_t>(best.address()));
    launch("head_softcap", parts, m, a);
    launch("best_of_parts", 1, m, a);
    for (int64_t i = 0; i < m; ++i)
      if (const Device<float> to = logits[static_cast<size_t>(i)]) copy(y + i * n, n, to);
  }

  void rms_norm(Device<const float> x, Device<const float> w, int64_t m, int64_t n, float eps,
                Device<float> y) override {
    NormArguments a{};
    a.n = narrow(n);
    a.eps = eps;
    a.residual = global(x);
    a.after = 1.0f;
    a.output[0] = {global(w), 1.0f, 1, global(y), {}};
    launch("norm", m, 1, a);
  }

  void rms_norm_add(Device<const float> x, Device<const float> w, int64_t m, int64_t n, float eps,
                    Device<const float> r, Device<float> y) override {
    NormArguments a{};
    a.n = narrow(n);
    a.eps = eps;
    a.branch = global(x);
    a.weight = global(w);
    a.residual = global(r);
    a.before = a.after = 1.0f;
    a.y = global(y);
    launch("norm", m, 1, a);
  }

  void gelu_mul(Device<const float> gate, Device<const float> up, int64_t m, int64_t n,
                Device<float> y) override {
    elements("gelu_mul", gate, up, 0, m * n, y);
  }
  void scale(Device<const float> x, float s, int64_t m, int64_t n, Device<float> y) override {
    elements("scale", x, {}, s, m * n, y);
  }
  void softcap(Device<const float> x, int64_t m, int64_t n, float cap, Device<float> y) override {
    elements("softcap", x, {}, cap, m * n, y);
  }

  void route(Device<const float> scores, Device<const float> scale, int64_t m,
             Routing& to) override {
    auto& r = static_cast<GpuRouting&>(to);
    r.route.scores = global(scores);
    r.route.per_expert_scale = global(scale);
    r.route.m = narrow(m);
    r.route.experts = narrow(r.sizes.experts);
    r.route.used = narrow(r.sizes.used);
    launch("route", 1, 1, r.route);
  }

  // Each expert's products by themselves: the list is read back to know whose there are.
  void expert_feed_forward(const ExpertMatrices& w, Device<const float> x, int64_t m,
                           Routing& routing, Device<float> y) override {
    auto& r = static_cast<GpuRouting&>(routing);
    const int64_t h = r.sizes.hidden, f = r.sizes.ffn, used = r.sizes.used;
    GatherArguments g{};
    g.x = global(x);
    g.rows = r.route.place_row;
    g.n = narrow(h);
    g.y = r.in;
    launch("gather", parts_of(h, 256), m * used, g);
    std::vector<MatrixRows> list(static_cast<size_t>(r.sizes.experts));
    device_->read(r.route.list.address, list.data(),
                  static_cast<int64_t>(list.size() * sizeof list[0]));
    const auto at = [](Global<float> base, int64_t n) {
      return Device<float>(reinterpret_cast<float*>((base + n).address));
    };
    for (const MatrixRows& e : list) {
      if (e.count == 0) continue;
      const auto expert = static_cast<size_t>(e.matrix);
      gated_matmul({{w.gate[expert].get(), w.up[expert].get(), at(r.in, e.first * h), h, e.count,
                     at(r.gated, e.first * f), f}});
      matmul({{w.down[expert].get(), at(r.gated, e.first * f), f, e.count, at(r.out, e.first * h),
               h}});
    }
    WeightedSumArguments a{};
    a.x = r.out;
    a.places = r.route.slot_place;
    a.weights = r.route.slot_weight;
    a.terms = narrow(used);
    a.n = narrow(h);
    a.y = global(y);
    launch("weighted_sum", parts_of(h, 256), m, a);
  }

  // Likewise.
  void cluster_head(const ClusterMatrices& w, Device<const float> scores, int64_t top,
                    Device<const float> x, const Mirror<int32_t>& ids,
                    const Mirror<float>& logits) override {
    const int64_t each = w.clusters.front()->rows;
    TopArguments t{global(scores), narrow(static_cast<int64_t>(w.clusters.size())), narrow(top),
                   scratch<MatrixRows>(chosen_, top)};
    launch("top_clusters", parts_of(t.n, 256), 1, t);
    std::vector<MatrixRows> chosen(static_cast<size_t>(top));
    device_->read(t.chosen.address, chosen.data(), top * static_cast<int64_t>(sizeof chosen[0]));
    const Global<float> unordered = scratch<float>(logits_, top * each);
    for (const MatrixRows& c : chosen)
      matmul(
          {{w.clusters[static_cast<size_t>(c.matrix)].get(), x, w.clusters.front()->cols, 1,
            Device<float>(reinterpret_cast<float*>((unordered + c.first * each).address)), each}});
    CandidatesArguments a{t.chosen,
                          global(Device<const int32_t>(w.tokens.device())),
                          unordered,
                          narrow(top),
                          narrow(each),
                          0,
                          global(ids.device()),
                          global(logits.device())};
    launch("sort_candidates", parts_of(top * each, 256), 1, a);
  }

  void store_kv(const PassRows& rows, const RowsOfLayers& of_type, int layer, int64_t first,
                int64_t m, const NewKv& kv) override {
    for_each_sequence(rows, layer, first, m, [&](KvLayer& to, int64_t row, int64_t n) {
      const int64_t at = (row - first) * to.kv_heads * to.head_dim;
      HeadsArguments a = heads_of(of_type, row, to.head_dim, kv.eps);
      a.k = global(Device<const float>(kv.k + at));
      a.v = global(Device<const float>((kv.v_is_k ? kv.k : kv.v) + at));
      a.k_weight = global(kv.k_weight);
      a.positions = global(Device<const int32_t>(rows.positions.device() + row));
      a.kv = static_cast<const GpuKv&>(to).place();
      a.kv_heads = narrow(to.kv_heads);
      launch(std::string("heads_") + static_cast<const GpuKv&>(to).type(), 2 * to.kv_heads, n, a);
    });
  }

  void norm_queries(const RowsOfLayers& of_type, int64_t first, int64_t m, int64_t heads, int64_t d,
                    Device<const float> weight, float eps, Device<float> q) override {
    HeadsArguments a = heads_of(of_type, first, d, eps);
    a.q = global(q);
    a.q_weight = global(weight);
    a.heads = narrow(heads);
    launch("heads_f32", heads, m, a);
  }

  void attention(const PassRows& rows, const RowsOfLayers& of_type, int layer, int64_t first,
                 int64_t m, Device<const float> q, int64_t heads, Device<float> out) override {
    for_each_sequence(rows, layer, first, m, [&](const KvLayer& layer_kv, int64_t row, int64_t n) {
      const auto& kv = static_cast<const GpuKv&>(layer_kv);
      for (int64_t end = row + n; row < end;) {
        const int64_t part = rows_together(of_type.spans, row, end, heads);
        const int64_t at = (row - first) * heads * kv.head_dim;
        attend(kv, of_type.spans, row, part, q + at, heads, out + at);
        row += part;
      }
    });
  }

 private:
  // Arrays in one piece of memory.
  class Pieces {
   public:
    explicit Pieces(GpuBackend& backend) : backend_(backend) {}
    template <class T>
    Global<T> add(int64_t n) {
      const Global<T> at(size_);
      size_ += (static_cast<uint64_t>(n) * sizeof(T) + 255) / 256 * 256;
      return at;
    }
    std::shared_ptr<void> reserve() {
      auto memory = backend_.zeros(static_cast<int64_t>(size_));
      base_ = reinterpret_cast<uint64_t>(memory.get());
      return memory;
    }
    template <class T>
    Global<T> at(Global<T> piece) const {
      return Global<T>(base_ + piece.address);
    }

   private:
    GpuBackend& backend_;
    uint64_t size_ = 0, base_ = 0;
  };

  // Memory that grows.
  struct Scratch {
    std::shared_ptr<void> memory;
    int64_t bytes = 0;
  };
  template <class T>
  Global<T> scratch(Scratch& s, int64_t n) {
    const int64_t bytes = n * static_cast<int64_t>(sizeof(T));
    if (bytes > s.bytes) {
      s.memory.reset();
      s.memory = zeros(bytes);
      s.bytes = bytes;
    }
    return Global<T>(reinterpret_cast<uint64_t>(s.memory.get()));
  }

  template <class Arguments>
  void launch(const std::string& kernel, int64_t blocks, int64_t rows, const Arguments& a) {
    if (blocks > 0 && rows > 0)
      device_->launch(kernel, blocks, rows, &a, static_cast<int64_t>(sizeof a));
  }

  void elements(const char* kernel, Device<const float> x, Device<const float> other, float factor,
                int64_t n, Device<float> y) {
    ElementsArguments a{};
    a.x = global(x);
    a.other = global(other);
    a.factor = factor;
    a.n = narrow(n);
    a.y = global(y);
    launch(kernel, parts_of(n, 256), 1, a);
  }

  static HeadsArguments heads_of(const RowsOfLayers& of_type, int64_t row, int64_t d, float eps) {
    HeadsArguments a{};
    const int64_t at = row * of_type.angles.half;
    a.cos = global(Device<const float>(of_type.angles.cos.device() + at));
    a.sin = global(Device<const float>(of_type.angles.sin.device() + at));
    a.d = narrow(d);
    a.eps = eps;
    return a;
  }

  // ---- products ----

  void multiply(const std::vector<MatmulJob>& jobs) override {
    // Those that multiply the same rows, in one format, go together, up to 4.
    for (size_t i = 0; i < jobs.size();) {
      size_t end = i + 1;
      while (end < jobs.size() && end - i < 4 && jobs[end].x == jobs[i].x &&
             jobs[end].m == jobs[i].m && of(jobs[end].w).format == of(jobs[i].w).format &&
             jobs[end].w->cols == jobs[i].w->cols)
        ++end;
      MatmulArguments a = product(*jobs[i].w, jobs[i].x, jobs[i].x_stride, jobs[i].m);
      for (size_t j = i; j < end; ++j) {
        const MatmulJob& job = jobs[j];
        GEMTP_ASSERT(job.y_stride == job.w->rows || job.m == 1);
        a.matrix[j - i] = packed(job.w);
        a.y[j - i] = global(job.y);
        a.strips += narrow(of(job.w).strips());
      }
      run_product(of(jobs[i].w), a, "");
      i = end;
    }
  }

  void multiply_gated(const std::vector<GatedJob>& jobs) override {
    for (const GatedJob& job : jobs) {
      const bool together =
          of(job.gate).format == of(job.up).format && job.m <= 16 && job.gate->type == job.up->type;
      if (!together) {
        const Global<float> ups = scratch<float>(ups_, job.m * job.up->rows);
        const Device<float> up(reinterpret_cast<float*>(ups.address));
        multiply({{job.gate, job.x, job.x_stride, job.m, job.y, job.y_stride},
                  {job.up, job.x, job.x_stride, job.m, up, job.up->rows}});
        gelu_mul(job.y, up, job.m, job.up->rows, job.y);
        continue;
      }
      MatmulArguments a = product(*job.gate, job.x, job.x_stride, job.m);
      a.matrix[0] = packed(job.gate);
      a.matrix[1] = packed(job.up);
      a.y[0] = global(job.y);
      a.strips = narrow(of(job.gate).strips());
      run_product(of(job.gate), a, "_gated");
    }
  }

  static PackedMatrix packed(const Matrix* w) {
    PackedMatrix p = of(w).packed;
    p.scale = w->scale;
    return p;
  }

  // With the rows where and as the kernels want them: quantized, or with room behind them.
  MatmulArguments product(const Matrix& w, Device<const float> x, int64_t x_stride, int64_t m) {
    GEMTP_ASSERT(x_stride == w.cols || m == 1);
    MatmulArguments a{};
    a.k = narrow(w.cols);
    a.m = narrow(m);
    ElementsArguments e{};
    e.x = global(x);
    e.n = narrow(m * w.cols);
    if (of(&w).quantized()) {
      const int64_t blocks = (m + kPanelRoom) * w.cols / 32;
      a.x = e.quantized = scratch<uint8_t>(quants_, blocks * (16 + 32 * device_->quant_bytes()));
      launch("quantize", parts_of(e.n, 256), 1, e);
    } else {
      const Global<float> rows = scratch<float>(floats_, (m + kPanelRoom) * w.cols);
      e.y = rows;
      a.x_float = rows;
      launch("copy", parts_of(e.n, 256), 1, e);
    }
    return a;
  }

  void run_product(const GpuMatrix& w, const MatmulArguments& a, const char* activation) {
    const std::string name = std::string("matmul_") + kFormatNames[w.format];
    if (w.quantized() && a.m > 16) {
      launch(name + "_many", parts_of(a.strips, 4), parts_of(a.m, device_->many_rows()), a);
      return;
    }
    int64_t panel = 1;
    while (panel < a.m && panel < 16) panel *= w.quantized() ? 2 : 4;
    launch(name + "_" + std::to_string(panel) + activation, a.strips, parts_of(a.m, panel), a);
  }

  // ---- attention ----

  // Rows from `row` on whose scores fit together, one at least.
  static int64_t rows_together(const Mirror<AttentionSpan>& spans, int64_t row, int64_t end,
                               int64_t heads) {
    int64_t n = 1;
    while (row + n < end && (n + 1) * heads * stride_of(spans, row, n + 1) <= kMostScores) ++n;
    return n;
  }

  // Positions that the rows attend to, as many as their scores need room for.
  static int64_t stride_of(const Mirror<AttentionSpan>& spans, int64_t row, int64_t m) {
    int64_t first = spans[row].first, last = spans[row].last;
    for (int64_t i = row; i < row + m; ++i) {
      first = std::min<int64_t>(first, spans[i].first);
      last = std::max<int64_t>(last, spans[i].last);
    }
    return (last - first + 256) / 128 * 128;
  }

  void attend(const GpuKv& kv, const Mirror<AttentionSpan>& spans, int64_t row, int64_t m,
              Device<const float> q, int64_t heads, Device<float> out) {
    const int64_t stride = stride_of(spans, row, m), group = heads / kv.kv_heads;
    AttentionArguments a{};
    a.q = global(q);
    static_assert(sizeof(Span) == sizeof(AttentionSpan));
    a.spans = Global<const Span>(reinterpret_cast<uint64_t>((spans.device() + row).address()));
    a.kv = kv.place();
    a.m = narrow(m);
    a.heads = narrow(heads);
    a.kv_heads = narrow(kv.kv_heads);
    a.d = narrow(kv.head_dim);
    a.p = scratch<float>(scores_, m * heads * stride);
    a.maxima = scratch<float>(maxima_, m * heads * stride / 128);
    a.p_stride = narrow(stride);
    a.out = global(out);
    const int64_t tile = m * group <= 2 ? 2 : 8, tiles = parts_of(m * group, tile);
    const std::string kind = std::string("_") + kv.type() + "_" + std::to_string(tile);
    launch("attention_scores" + kind, stride / 128, kv.kv_heads * tiles, a);
    launch("attention_values" + kind, parts_of(kv.head_dim, 32), kv.kv_heads * tiles, a);
  }

  // ---- memory ----

  std::shared_ptr<void> zeros(int64_t bytes) {
    std::shared_ptr<void> memory = reserve(device_, bytes);
    const std::vector<uint8_t> nothing(static_cast<size_t>(bytes));
    device_->write(reinterpret_cast<uint64_t>(memory.get()), nothing.data(), bytes);
    return memory;
  }
  MirroredBytes mirrored(int64_t bytes) override {
    auto host = std::make_shared<AlignedBytes>(allocate_aligned(static_cast<size_t>(bytes)));
    std::memset(host->get(), 0, static_cast<size_t>(bytes));
    auto device = zeros(bytes);
    MirroredBytes out{host->get(), device.get(), nullptr};
    out.memory = std::make_shared<std::pair<std::shared_ptr<AlignedBytes>, std::shared_ptr<void>>>(
        std::move(host), std::move(device));
    return out;
  }
  void write_bytes(const void* host, void* to, int64_t bytes) override {
    device_->write(reinterpret_cast<uint64_t>(to), host, bytes);
  }
  void read_bytes(const void* from, void* host, int64_t bytes) override {
    device_->read(reinterpret_cast<uint64_t>(from), host, bytes);
  }
  void send_bytes(const void* host, void* to, int64_t bytes) override {
    device_->write(reinterpret_cast<uint64_t>(to), host, bytes);
  }
  void fetch_bytes(const void* from, void* host, int64_t bytes) override {
    device_->read(reinterpret_cast<uint64_t>(from), host, bytes);
  }
  void begin_pass(const std::atomic<bool>* stop) override { stop_ = stop; }
  void end_pass() override { stop_ = nullptr; }

  const std::shared_ptr<GpuDevice> device_;
  const std::unique_ptr<Backend> host_;
  const std::atomic<bool>* stop_ = nullptr;
  Scratch quants_, floats_, ups_, logits_, best_, scores_, maxima_, chosen_;
};

}  // namespace

std::unique_ptr<Backend> make_gpu_backend(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<Backend> host) {
  return std::make_unique<GpuBackend>(std::move(device), std::move(host));
}

}  // namespace gemtp
