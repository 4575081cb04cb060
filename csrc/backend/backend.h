// The operations a backend offers to the model code. Each is one fused grain of a forward pass,
// works on m independent rows, and gives every row the same bits whatever m is and whatever the
// other rows are (batch invariance): that is what makes draft-verify print the text of plain
// decoding.
//
// Addresses of numbers are addresses in the backend's memory (device.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/device.h"
#include "backend/pass_rows.h"
#include "base/aligned_memory.h"
#include "base/input_file.h"
#include "gguf/types.h"

namespace gemtp {

/// Rows of a weight in memory or in a file, as the source of a Matrix or a table. What they lie in
/// must outlive tables.
struct WeightSource {
  DType type = DType::kF32;
  int64_t rows = 0, cols = 0;       // [rows, cols], cols contiguous
  const uint8_t* data = nullptr;    // first row, if they are in memory
  std::string name = {};            // of the tensor
  const InputFile* file = nullptr;  // that they come from, and lie in unless `data` is set
  uint64_t offset = 0;              // of the first row, in the file

  int64_t row_bytes() const {
    const DTypeInfo* info = dtype_info(static_cast<uint32_t>(type));
    return cols / info->block * info->bytes;
  }
  WeightSource slice(int64_t first, int64_t count) const {
    const int64_t skipped = first * row_bytes();
    return {type,
            count,
            cols,
            data ? data + skipped : nullptr,
            name,
            file,
            offset + static_cast<uint64_t>(skipped)};
  }
  /// For error sentences.
  std::string where() const { return (file ? file->quoted_path() + ": " : "") + "tensor " + name; }
  /// Bytes [at, at + n), counted from the first row: where they lie in memory, or read into
  /// `buffer`. Error{kFile} as InputFile::read().
  const uint8_t* bytes(int64_t at, int64_t n, uint8_t* buffer) const {
    if (data) return data + at;
    file->read(offset + static_cast<uint64_t>(at), static_cast<size_t>(n), buffer);
    return buffer;
  }
};

/// Told by load_matrix() of the pieces that it has read, in order, from the calling thread.
using LoadProgress = std::function<void(int64_t bytes)>;

/// A weight laid out for matmul.
class Matrix {
 public:
  virtual ~Matrix() = default;
  DType type = DType::kF32;
  int64_t rows = 0, cols = 0;
  int64_t bytes = 0;    // read by one pass over it
  float scale = 1.0f;   // of every product with it
  WeightSource source;  // of all its rows, in order; without a name: they were listed
};

using MatrixPtr = std::unique_ptr<Matrix>;

/// Keys and values of rows as they come out of products, [rows, kv_heads, d]; scratch afterwards.
struct NewKv {
  Device<float> k;
  Device<float> v;  // not yet there where values are the raw keys
  bool v_is_k = false;
  Device<const float> k_weight;  // [d], of the keys' norm
  float eps = 0;
};

/// Matrices of the experts of a layer: w_down (gelu(w_gate x) * (w_up x)), all of one shape.
struct ExpertMatrices {
  std::vector<MatrixPtr> gate, up;  // each [ffn, hidden]
  std::vector<MatrixPtr> down;      // each [hidden, ffn]
};

/// The experts that rows are given to, as Backend::route() has chosen them, and room for what they
/// make of the rows.
class Routing {
 public:
  virtual ~Routing() = default;
};

/// Sizes of a Routing: at most `rows` rows, each given to `used` of `experts`.
struct RoutingSizes {
  int64_t rows = 0, experts = 0, used = 0, hidden = 0, ffn = 0;
};

/// The ordered head of a drafter: its tokens in clusters.
struct ClusterMatrices {
  std::vector<MatrixPtr> clusters;  // head rows of each cluster: [tokens of a cluster, hidden]
  Mirror<int32_t> tokens;           // [clusters][tokens of a cluster], ascending in each
};

/// K and V of one layer: `capacity` slots, position p in slot p % capacity.
class KvLayer {
 public:
  virtual ~KvLayer() = default;
  int64_t kv_heads = 0, head_dim = 0, capacity = 0, bytes = 0;

  /// K and V of positions 16 b .. 16 b + 15, the same bytes whatever the capacity and the
  /// instruction set: to keep them, or to give them to another cache of the same kind.
  virtual int64_t block_bytes() const = 0;
  virtual void get_block(int64_t b, uint8_t* to) const = 0;
  virtual void put_block(int64_t b, const uint8_t* from) = 0;
};

/// One product y = x W^T: x is [m] rows of cols floats, y [m] rows of W.rows floats.
struct MatmulJob {
  const Matrix* w = nullptr;
  Device<const float> x;
  int64_t x_stride = 0;
  int64_t m = 0;
  Device<float> y;
  int64_t y_stride = 0;
};

/// y = gelu(x G^T) * (x U^T), element by element: the gated half of a feed-forward. G and U have
/// the same shape.
struct GatedJob {
  const Matrix* gate = nullptr;
  const Matrix* up = nullptr;
  Device<const float> x;
  int64_t x_stride = 0;
  int64_t m = 0;
  Device<float> y;  // [m] rows of gate->rows floats
  int64_t y_stride = 0;
};

/// The largest of a row of logits, the first of equal ones; or the first that is NaN or +infinity,
/// if one is.
struct BestLogit {
  int32_t index = 0;
  float logit = 0;
};

/// Told before a product: m rows of w.cols floats, `stride` apart, that meet the matrix loaded from
/// `source`.
using Observer =
    std::function<void(const WeightSource& source, const float* x, int64_t stride, int64_t m)>;

/// Where weights, K/V and buffers live.
class Storage {
 public:
  virtual ~Storage() = default;

  /// n floats, zero.
  virtual Buffer alloc(int64_t n) = 0;
  /// n values, zero.
  template <class T>
  Mirror<T> mirror(int64_t n) {
    return {mirrored(n * static_cast<int64_t>(sizeof(T))), n};
  }
  /// n values of the host's to the backend, and back; done when it returns.
  template <class T>
  void write(const T* from, int64_t n, Device<T> to) {
    write_bytes(from, to.address(), n * static_cast<int64_t>(sizeof(T)));
  }
  template <class T>
  void read(Device<const T> from, int64_t n, T* to) {
    read_bytes(from.address(), to, n * static_cast<int64_t>(sizeof(T)));
  }

  /// Lays out the rows of `source`: all, in order, or those listed of rows in memory. Error{kFile}
  /// for non-finite weights or scales, and for a file that cannot be read. `progress` may be empty;
  /// it watches a source of which all rows are read.
  virtual std::unique_ptr<Matrix> load_matrix(const WeightSource& source,
                                              const std::vector<int32_t>* rows = nullptr,
                                              const LoadProgress& progress = {}) = 0;
  /// All rows of `source`, as they lie in the file, in the host's memory.
  virtual AlignedBytes read(const WeightSource& source) = 0;
  virtual std::unique_ptr<KvLayer> make_kv(int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                           bool f16) = 0;
  virtual std::unique_ptr<Routing> make_routing(const RoutingSizes& sizes) = 0;

 private:
  virtual MirroredBytes mirrored(int64_t bytes) = 0;
  virtual void write_bytes(const void* host, void* device, int64_t bytes) = 0;
  virtual void read_bytes(const void* device, void* host, int64_t bytes) = 0;
};

class Backend : public Storage {
 public:
  virtual std::string device() const = 0;  // e.g. "cpu"
  virtual std::string isa() const = 0;     // of the CPU, which every device has beside it: "avx2"
  std::string name() const { return device() + "/" + isa(); }
  virtual int threads() const = 0;

  /// While one lives, operations follow each other closely: threads stay awake between them. When
  /// `stop`, if there is one, becomes true, operations leave off within a millisecond or so, with
  /// their results undefined.
  class Pass {
   public:
    explicit Pass(Backend& backend, const std::atomic<bool>* stop = nullptr) : backend_(backend) {
      backend_.begin_pass(stop);
    }
    ~Pass() { backend_.end_pass(); }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

   private:
    Backend& backend_;
  };

  /// Whether the pass has been stopped.
  virtual bool stopped() const = 0;

  /// From now on `observer` is told of each product. Matrices of listed rows are not observed.
  void observe(Observer observer) { observer_ = std::move(observer); }

  // Everything below is enqueued: it is done in order, at the latest when wait() returns, and what
  // is wrong comes out of that at the latest. Arguments that lie in the host's memory may change
  // as soon as the operation has been enqueued.

  /// Runs `body`, which enqueues operations. Where an earlier body of the same shape was recorded
  /// that is repeated instead: so everything that can differ between the two is part of the shape,
  /// or in the backend's memory.
  virtual void run(std::span<const int64_t> shape, const std::function<void()>& body) {
    static_cast<void>(shape);
    body();
  }
  /// Until all that was enqueued is done.
  virtual void wait() = 0;

  template <class T>
  void send(const Mirror<T>& mirror, int64_t at, int64_t n) {
    send_bytes(mirror.host() + at, (mirror.device() + at).address(), n * bytes_of<T>());
  }
  template <class T>
  void fetch(const Mirror<T>& mirror, int64_t at, int64_t n) {
    fetch_bytes((mirror.device() + at).address(), mirror.host() + at, n * bytes_of<T>());
  }
  /// All of the rows, and what tables hold for their ids.
  virtual void send(const PassRows& rows) = 0;
  /// n floats within the backend's memory.
  virtual void copy(Device<const float> from, int64_t n, Device<float> to) = 0;

  /// y[i] = table[rows.ids[first + i]][col .. col + n) * scale; y is [m, n]. Tables are not read
  /// when they are loaded, so here is where damage shows: Error{kFile} for a NaN or infinite value,
  /// and for a file that is not what it was when it was opened.
  virtual void embed(const WeightSource& table, const PassRows& rows, int64_t first, int64_t m,
                     int64_t col, int64_t n, float scale, Device<float> y) = 0;
  /// All products at once; jobs with the same x share its quantization.
  void matmul(const std::vector<MatmulJob>& jobs) {
    if (observer_)
      for (const MatmulJob& job : jobs) observe_product(*job.w, job.x, job.x_stride, job.m);
    multiply(jobs);
  }
  void gated_matmul(const std::vector<GatedJob>& jobs) {
    if (observer_)
      for (const GatedJob& job : jobs)
        for (const Matrix* w : {job.gate, job.up}) observe_product(*w, job.x, job.x_stride, job.m);
    multiply_gated(jobs);
  }
  /// logits = cap * tanh(x W^T / cap), or x W^T where cap is 0; x is [m, W.cols]. Those of row i go
  /// to logits[i], [W.rows]; where that is of nothing only the best of the row is kept, best is
  /// [m].
  virtual void head(const Matrix& w, Device<const float> x, int64_t m, float cap,
                    std::span<const Device<float>> logits, Device<BestLogit> best) = 0;

  // Element-wise and row-wise operations on [m, n]; see kernels.h for the exact arithmetic.
  virtual void rms_norm(Device<const float> x, Device<const float> w, int64_t m, int64_t n,
                        float eps, Device<float> y) = 0;
  virtual void rms_norm_add(Device<const float> x, Device<const float> w, int64_t m, int64_t n,
                            float eps, Device<const float> r, Device<float> y) = 0;
  virtual void gelu_mul(Device<const float> gate, Device<const float> up, int64_t m, int64_t n,
                        Device<float> y) = 0;
  virtual void scale(Device<const float> x, float s, int64_t m, int64_t n, Device<float> y) = 0;
  virtual void softcap(Device<const float> x, int64_t m, int64_t n, float cap, Device<float> y) = 0;
  /// Gives each of m rows to the experts of its largest scores, best first, of equal ones the
  /// first. Their weights: softmax over all scores [m, experts], those of the chosen renormalised,
  /// times the expert's scale [experts]; in floats, by the kernels' exp.
  virtual void route(Device<const float> scores, Device<const float> scale, int64_t m,
                     Routing& to) = 0;
  /// y[i] = sum over the experts of row i, best first, of weight * what the expert makes of x[i]; x
  /// and y are [m, hidden], m as given to route().
  virtual void expert_feed_forward(const ExpertMatrices& w, Device<const float> x, int64_t m,
                                   Routing& routing, Device<float> y) = 0;

  /// Logits of the tokens in the `top` clusters with the best of scores [clusters], of equal ones
  /// the first: ids and logits, [top * tokens of a cluster] each, ascending by id. x: [hidden].
  virtual void cluster_head(const ClusterMatrices& w, Device<const float> scores, int64_t top,
                            Device<const float> x, const Mirror<int32_t>& ids,
                            const Mirror<float>& logits) = 0;

  // Of the rows first .. first + m - 1 of a pass; K/V are those of layer `layer` of each row's own
  // sequence.
  /// Norms and rotates the heads of keys, norms those of values, and stores both at the positions
  /// of the rows.
  virtual void store_kv(const PassRows& rows, const RowsOfLayers& of_type, int layer, int64_t first,
                        int64_t m, const NewKv& kv) = 0;
  /// In place on q [m, heads, d]: norm and rotation of each head, with weight [d].
  virtual void norm_queries(const RowsOfLayers& of_type, int64_t first, int64_t m, int64_t heads,
                            int64_t d, Device<const float> weight, float eps, Device<float> q) = 0;
  /// out[i][h] = softmax(q[i][h] . K) V over the row's span; q and out are [m, heads, d]. Scale 1.
  virtual void attention(const PassRows& rows, const RowsOfLayers& of_type, int layer,
                         int64_t first, int64_t m, Device<const float> q, int64_t heads,
                         Device<float> out) = 0;

 private:
  template <class T>
  static constexpr int64_t bytes_of() {
    return static_cast<int64_t>(sizeof(T));
  }
  virtual void begin_pass(const std::atomic<bool>* stop) = 0;
  virtual void end_pass() = 0;
  virtual void send_bytes(const void* host, void* device, int64_t bytes) = 0;
  virtual void fetch_bytes(const void* device, void* host, int64_t bytes) = 0;
  virtual void multiply(const std::vector<MatmulJob>& jobs) = 0;
  virtual void multiply_gated(const std::vector<GatedJob>& jobs) = 0;
  void observe_product(const Matrix& w, Device<const float> x, int64_t stride, int64_t m);

  Observer observer_;
};

/// The CPU backend. threads >= 1; isa as in select_kernels().
std::unique_ptr<Backend> make_cpu_backend(int threads, const std::string& isa);

}  // namespace gemtp
