// The CPU backend: splits each operation over the thread pool and calls the kernel table. Work is
// split over rows, heads and output tiles, never inside a sum.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "backend/backend.h"
#include "backend/cpu/cluster_order.h"
#include "backend/cpu/cpu_attention.h"
#include "backend/cpu/cpu_matmul.h"
#include "backend/cpu/cpu_memory.h"
#include "backend/cpu/cpu_routing.h"
#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/packed_form.h"
#include "base/aligned_memory.h"
#include "base/cpu_info.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace gemtp {
namespace {

// Of a matrix, read between two reports of progress.
constexpr int64_t kLoadWindow = 16 << 20;

// Of a file, read by a thread at a time: stays in the cache until it has been packed.
constexpr int64_t kReadBytes = 128 << 10;

// Pieces per thread: enough that a thread which was descheduled does not hold up the others.
constexpr int64_t kPiecesPerThread = 4;

// Rows of element-wise work below which waking other threads costs more than it saves.
constexpr int64_t kSerialFloats = 16384;

class CpuBackend : public Backend {
 public:
  CpuBackend(int threads, const gemtp_kernels& kernels)
      : kernels_(kernels),
        pool_(threads),
        buffers_(static_cast<size_t>(pool_.threads())),
        matmul_(kernels, pool_),
        attention_(kernels, pool_) {}

  std::string device() const override { return "cpu"; }
  std::string isa() const override { return kernels_.name; }
  uint64_t available() const override { return available_memory(); }
  int threads() const override { return pool_.threads(); }
  bool stopped() const override { return pool_.stopped(); }

  Buffer alloc(int64_t n) override {
    std::shared_ptr<void> memory = zeros(n * static_cast<int64_t>(sizeof(float)));
    return {Device<float>(static_cast<float*>(memory.get())), memory};
  }

  std::unique_ptr<Matrix> load_matrix(const WeightSource& source, const std::vector<int32_t>* rows,
                                      const LoadProgress& progress) override {
    auto m = std::make_unique<CpuMatrix>();
    m->type = source.type;
    m->rows = rows ? static_cast<int64_t>(rows->size()) : source.rows;
    m->cols = source.cols;
    if (!rows) m->source = source;
    m->source.data = nullptr;  // gone when it has been laid out
    m->tile_bytes = tile_bytes(source.type, source.cols);
    m->bytes = m->tiles() * m->tile_bytes;
    m->data = arena_.allocate(static_cast<size_t>(m->bytes));
    GEMTP_ASSERT(!(rows && progress));
    const int64_t tile_source = GEMTP_TILE * source.row_bytes();
    const int64_t window = std::max<int64_t>(1, kLoadWindow / tile_source);
    const int64_t all = source.rows * source.row_bytes();
    std::atomic<int64_t> bad{0};
    if (!rows) prefetch(source, 0, window * tile_source);
    for (int64_t first = 0; first < m->tiles(); first += window) {
      if (!rows) prefetch(source, (first + window) * tile_source, window * tile_source);
      const int64_t n = std::min(window, m->tiles() - first);
      pool_.parallel_for(n, 8, [&](int64_t begin, int64_t end, int thread) {
        const int64_t seen = rows ? pack_listed(source, *rows, *m, first + begin, first + end)
                                  : pack(source, *m, first + begin, first + end, thread);
        if (seen) bad += seen;
      });
      if (progress) progress(std::min(all - first * tile_source, window * tile_source));
    }
    if (bad != 0)
      throw Error(ErrorKind::kFile,
                  format("%s holds %lld NaN or infinite %s; the file is damaged, convert or "
                         "download it again",
                         source.where().c_str(), static_cast<long long>(bad.load()),
                         quantized(source.type) ? "block scales" : "weights"));
    return m;
  }

  AlignedBytes read(const WeightSource& source) override {
    const int64_t size = source.rows * source.row_bytes();
    AlignedBytes out = allocate(size);
    prefetch(source, 0, size);
    pool_.parallel_for(size, kReadBytes, [&](int64_t begin, int64_t end, int) {
      const uint8_t* from = source.bytes(begin, end - begin, out.get() + begin);
      if (source.data) std::memcpy(out.get() + begin, from, static_cast<size_t>(end - begin));
    });
    return out;
  }

  std::unique_ptr<KvLayer> make_kv(int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                   bool f16) override {
    return attention_.make_kv(kv_heads, head_dim, capacity, f16);
  }

  std::unique_ptr<Routing> make_routing(const RoutingSizes& sizes) override {
    return std::make_unique<CpuRouting>(sizes, *this);
  }

  void wait() override {}
  void send(PassRows&) override {}

  void embed(const WeightSource& table, const PassRows& pass, int64_t first, int64_t m, int64_t col,
             int64_t n, float scale, float* y) override {
    const int32_t* ids = pass.ids.host() + first;
    std::atomic<int64_t> bad{-1};
    rows(m, n, [&](int64_t i, int thread) {
      float* to = y + i * n;
      dequantize(table, ids[i], col, n, buffers_[static_cast<size_t>(thread)], to);
      kernels_.scale(to, scale, n, to);
      for (int64_t j = 0; j < n; ++j)
        if (!std::isfinite(to[j])) bad = ids[i];
    });
    if (!table.data) table.file->check_unchanged();
    if (bad >= 0)
      throw Error(
          ErrorKind::kFile,
          format("%s holds a NaN or infinite value in row %lld; the file is damaged, convert "
                 "or download it again",
                 table.where().c_str(), static_cast<long long>(bad.load())));
  }

  void head(const Matrix& w, Device<const float> x, int64_t m, float cap,
            std::span<const Device<float>> logits, Device<BestLogit> best) override {
    matmul_.head(w, x.address(), m, cap, logits, best.address());
  }

  void norm(Device<const float> x, int64_t m, int64_t n, float eps,
            const std::vector<NormResult>& results) override {
    rows(m, n, [&](int64_t i, int) { norm_row((x + i * n).address(), i, n, eps, results); });
  }

  void add_branch(const Branch& branch, int64_t m, int64_t n, float eps, Device<float> x,
                  const std::vector<NormResult>& results) override {
    rows(m, n, [&](int64_t i, int) {
      float *row = (x + i * n).address(), *y = (branch.y + i * n).address();
      if (branch.before != 1.0f) kernels_.scale(y, branch.before, n, y);
      kernels_.rms_norm_add(y, branch.weight.address(), n, eps, row, row);
      if (branch.after != 1.0f) kernels_.scale(row, branch.after, n, row);
      norm_row(row, i, n, eps, results);
    });
  }

  void copy(Device<const float> from, int64_t n, Device<float> to) override {
    std::memcpy(to.address(), from.address(), static_cast<size_t>(n) * sizeof(float));
  }

  void softcap(Device<float> x, int64_t n, float cap) override {
    elements(n, [&](int64_t at, int64_t count) {
      kernels_.softcap((x + at).address(), count, cap, (x + at).address());
    });
  }

  void route(Device<const float> scores, Device<const float> scale, int64_t m,
             Routing& to) override {
    static_cast<CpuRouting&>(to).route(scores.address(), scale.address(), m);
  }

  void expert_feed_forward(const ExpertMatrices& w, Device<const float> x, int64_t m,
                           Routing& routing, Device<float> y) override {
    auto& r = static_cast<CpuRouting&>(routing);
    const int64_t n = r.sizes().hidden;
    r.make_jobs(w, x);
    rows(static_cast<int64_t>(r.copied_rows().size()), n, [&](int64_t i, int) {
      copy(x + r.copied_rows()[static_cast<size_t>(i)] * n, n, r.copies() + i * n);
    });
    gated_matmul(r.gated_jobs());
    matmul(r.out_jobs());
    const int64_t used = r.sizes().used;
    rows(m, n * used, [&](int64_t i, int) {
      float* to = (y + i * n).address();
      std::memset(to, 0, static_cast<size_t>(n) * 4);
      for (int64_t slot = i * used; slot < (i + 1) * used; ++slot)
        kernels_.axpy(r.weight(slot), r.output(slot).address(), n, to);
    });
  }

  void cluster_head(const ClusterMatrices& w, Device<const float> scores, int64_t top,
                    Device<const float> x, Device<int32_t> ids, Device<float> logits) override {
    cluster_order_.choose(scores.address(), w.clusters->size(), top);
    const int64_t each = (*w.clusters)[0].rows;
    float* unordered = cluster_logits_.ensure(top * each);
    std::vector<MatmulJob> jobs;
    for (int64_t i = 0; i < top; ++i) {
      const Matrix& cluster = (*w.clusters)[cluster_order_[i]];
      jobs.push_back({&cluster, x, cluster.cols, 1, Device<float>(unordered + i * each), each});
    }
    matmul(jobs);
    cluster_order_.sort(w.tokens.host(), each, unordered, ids.address(), logits.address());
  }

  void finish_heads(const PassRows& pass, const RowsOfLayers& of_type, int layer, int64_t first,
                    int64_t m, int64_t keep, const NewHeads& h) override {
    if (h.k) store_kv(pass, of_type, layer, first, m, h);
    if (keep)
      norm_heads(h.q, h.q_weight, keep, h.heads, h.d, h.eps, &of_type.angles, first + m - keep);
  }

  void attention(const PassRows& pass, const RowsOfLayers& of_type, int layer, int64_t first,
                 int64_t m, Device<const float> q, int64_t heads, Device<float> out) override {
    for_each_run(pass, first, m, [&](const RowRun& run) {
      const KvLayer& kv = layer_of(pass, layer, run);
      const int64_t at = (run.first - first) * heads * kv.head_dim;
      attention_.attend(kv, (q + at).address(), run.count, heads, of_type.spans.host() + run.first,
                        (out + at).address());
    });
  }

 private:
  void begin_pass(const std::atomic<bool>* stop) override { pool_.begin_pass(stop); }
  void end_pass() override { pool_.end_pass(); }
  void write_bytes(const void* host, void* device, int64_t bytes) override {
    std::memcpy(device, host, static_cast<size_t>(bytes));
  }
  void read_bytes(const void* device, void* host, int64_t bytes) override {
    std::memcpy(host, device, static_cast<size_t>(bytes));
  }
  void send_bytes(const void*, void*, int64_t) override {}
  void fetch_bytes(const void*, void*, int64_t) override {}
  void multiply(const std::vector<MatmulJob>& jobs) override { matmul_.products(jobs); }
  void multiply_gated(const std::vector<GatedJob>& jobs) override { matmul_.gated(jobs); }

  MirroredBytes mirrored(int64_t bytes) override {
    std::shared_ptr<void> memory = zeros(bytes);
    return {memory.get(), memory.get(), memory};
  }

  static std::shared_ptr<void> zeros(int64_t bytes) {
    return {allocate_zeros(static_cast<size_t>(bytes)), free_zeros};
  }

  // The norms of row i of x.
  void norm_row(const float* x, int64_t i, int64_t n, float eps,
                const std::vector<NormResult>& results) {
    for (const NormResult& r : results) {
      float* y = (r.y + i * n).address();
      kernels_.rms_norm(x, r.weight.address(), n, eps, y);
      if (r.scale != 1.0f) kernels_.scale(y, r.scale, n, y);
    }
  }

  void store_kv(const PassRows& pass, const RowsOfLayers& of_type, int layer, int64_t first,
                int64_t m, const NewHeads& h) {
    const int64_t heads = layer_of(pass, layer, pass.runs[0]).kv_heads;
    if (h.v_is_k) copy(h.k, m * heads * h.d, h.v);
    norm_heads(h.k, h.k_weight, m, heads, h.d, h.eps, &of_type.angles, first);
    norm_heads(h.v, {}, m, heads, h.d, h.eps, nullptr, first);
    for_each_run(pass, first, m, [&](const RowRun& run) {
      const int64_t at = (run.first - first) * heads * h.d;
      attention_.store(layer_of(pass, layer, run), (h.k + at).address(), (h.v + at).address(),
                       pass.positions[run.first], run.count);
    });
  }

  // x [m, heads, d]: the norm of each head (weight w [d], or none), then the rotation of its row,
  // which has the angles first + i (none: values are not rotated).
  void norm_heads(Device<float> x, Device<const float> w, int64_t m, int64_t heads, int64_t d,
                  float eps, const RopeAngles* angles, int64_t first) {
    rows(m, heads * d, [&](int64_t i, int) {
      for (int64_t h = 0; h < heads; ++h) {
        float* head = (x + (i * heads + h) * d).address();
        kernels_.rms_norm(head, w.address(), d, eps, head);
        if (!angles) continue;
        const int64_t at = (first + i) * angles->half;
        kernels_.rope(head, angles->cos.host() + at, angles->sin.host() + at, d);
      }
    });
  }

  // Of the rows of `source`, bytes [at, at + n) as far as there are any.
  static void prefetch(const WeightSource& source, int64_t at, int64_t n) {
    const int64_t end = std::min(at + n, source.rows * source.row_bytes());
    if (source.data || at >= end) return;
    source.file->prefetch(source.offset + static_cast<uint64_t>(at),
                          static_cast<uint64_t>(end - at));
  }

  // Tiles begin .. end - 1 of all rows in order. Returns as pack_tile().
  int64_t pack(const WeightSource& source, const CpuMatrix& m, int64_t begin, int64_t end,
               int thread) {
    const int64_t row_bytes = source.row_bytes(), tile_source = GEMTP_TILE * row_bytes;
    const int64_t size = source.rows * row_bytes;
    const int64_t together = std::max<int64_t>(1, kReadBytes / tile_source);
    int64_t bad = 0;
    for (int64_t first = begin; first < end; first += together) {
      const int64_t stop = std::min(end, first + together), at = first * tile_source;
      const int64_t n = std::min(size, stop * tile_source) - at;
      uint8_t* buffer = source.data ? nullptr : buffers_[static_cast<size_t>(thread)].ensure(n);
      const uint8_t* row = source.bytes(at, n, buffer);
      for (int64_t t = first; t < stop; ++t) {
        const uint8_t* rows[GEMTP_TILE] = {};
        for (int64_t i = 0; i < std::min<int64_t>(GEMTP_TILE, m.rows - t * GEMTP_TILE); ++i)
          rows[i] = row + i * row_bytes;
        bad += pack_tile(m.type, m.cols, rows, m.data.get() + t * m.tile_bytes);
        row += tile_source;
      }
    }
    return bad;
  }

  // Likewise of the rows that are listed, which are in memory.
  static int64_t pack_listed(const WeightSource& source, const std::vector<int32_t>& list,
                             const CpuMatrix& m, int64_t begin, int64_t end) {
    GEMTP_ASSERT(source.data);
    int64_t bad = 0;
    for (int64_t t = begin; t < end; ++t) {
      const uint8_t* rows[GEMTP_TILE] = {};
      for (int64_t i = 0; i < std::min<int64_t>(GEMTP_TILE, m.rows - t * GEMTP_TILE); ++i)
        rows[i] = source.data + list[static_cast<size_t>(t * GEMTP_TILE + i)] * source.row_bytes();
      bad += pack_tile(m.type, m.cols, rows, m.data.get() + t * m.tile_bytes);
    }
    return bad;
  }

  template <class Fn>
  void rows(int64_t m, int64_t n, const Fn& fn) {
    const int64_t grain =
        m * n < kSerialFloats ? m : std::max<int64_t>(1, m / (pool_.threads() * kPiecesPerThread));
    pool_.parallel_for(m, grain, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) fn(i, thread);
    });
  }

  // Element-wise work is cut at multiples of 64, wherever rows end.
  template <class Fn>
  void elements(int64_t n, const Fn& fn) {
    const int64_t units = (n + 63) / 64;
    const int64_t grain = n < kSerialFloats
                              ? units
                              : std::max<int64_t>(1, units / (pool_.threads() * kPiecesPerThread));
    pool_.parallel_for(units, grain, [&](int64_t begin, int64_t end, int) {
      fn(begin * 64, std::min(end * 64, n) - begin * 64);
    });
  }

  const gemtp_kernels& kernels_;
  ThreadPool pool_;
  std::vector<Scratch<uint8_t>> buffers_;  // of what is read from files, one per thread
  Arena arena_;                            // of the matrices
  CpuMatmul matmul_;
  CpuAttention attention_;
  ClusterOrder cluster_order_;
  Scratch<float> cluster_logits_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int threads, const std::string& isa) {
  return std::make_unique<CpuBackend>(threads, select_kernels(isa));
}

}  // namespace gemtp
