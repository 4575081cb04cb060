// The operations a backend offers to the model code. Each is one fused step of a forward pass on m
// independent rows and gives every row the same bits, whatever m and the other rows are (batch
// invariance). Therefore draft-verify produces the same text as plain decoding.
//
// Device<T> addresses point into the backend's memory (device.h).
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

/// Rows of a weight in memory or in a file, the source of a Matrix or a table. The memory or file
/// must outlive the tables that use it.
struct WeightSource {
  DType type = DType::kF32;
  int64_t rows = 0, cols = 0;       // [rows, cols], cols contiguous
  const uint8_t* data = nullptr;    // first row, if the rows are in memory
  std::string name = {};            // name of the tensor
  const InputFile* file = nullptr;  // the file of the rows; read unless `data` is set
  uint64_t offset = 0;              // of the first row in the file

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
  /// Names file and tensor in error sentences.
  std::string where() const { return (file ? file->quoted_path() + ": " : "") + "tensor " + name; }
  /// Returns bytes [at, at + n), counted from the first row: a pointer to `data`, or `buffer` after
  /// reading them from the file. Throws Error{kFile} like InputFile::read().
  const uint8_t* bytes(int64_t at, int64_t n, uint8_t* buffer) const {
    if (data) return data + at;
    file->read(offset + static_cast<uint64_t>(at), static_cast<size_t>(n), buffer);
    return buffer;
  }
};

/// Called by load_matrix() after each piece it has read, in order, on the calling thread.
using LoadProgress = std::function<void(int64_t bytes)>;

/// A weight laid out for matmul.
class Matrix {
 public:
  virtual ~Matrix() = default;
  DType type = DType::kF32;
  int64_t rows = 0, cols = 0;
  int64_t bytes = 0;    // read by one pass over the matrix
  float scale = 1.0f;   // factor of every product with the matrix
  WeightSource source;  // of all rows in order; has no name if the rows were listed
};

using MatrixPtr = std::unique_ptr<Matrix>;

/// Matrices of one type and shape, among which an operation chooses by number. A backend may keep
/// a table of them in its memory.
class MatrixSet {
 public:
  explicit MatrixSet(std::vector<MatrixPtr> all) : matrices(std::move(all)) {}
  virtual ~MatrixSet() = default;

  int64_t size() const { return static_cast<int64_t>(matrices.size()); }
  const Matrix& operator[](int64_t i) const { return *matrices[static_cast<size_t>(i)]; }

  const std::vector<MatrixPtr> matrices;
};

/// Queries, keys and values of rows as products give them, [rows, heads, d] each. Overwritten.
struct NewHeads {
  int64_t heads = 0, d = 0;      // of the queries
  Device<float> q;               // of the last `keep` rows
  Device<const float> q_weight;  // [d], of the queries' norm
  Device<float> k;               // none if the layer reads the K/V of another one
  Device<float> v;               // not yet computed if the values are the raw keys
  bool v_is_k = false;
  Device<const float> k_weight;  // [d], of the keys' norm
  float eps = 0;
};

/// The experts of a layer, which compute w_down (gelu(w_gate x) * (w_up x)).
struct ExpertMatrices {
  std::unique_ptr<MatrixSet> gate, up;  // each [ffn, hidden]
  std::unique_ptr<MatrixSet> down;      // each [hidden, ffn]
};

/// The experts that Backend::route() has chosen for each row, and scratch memory for their outputs.
class Routing {
 public:
  virtual ~Routing() = default;
};

/// Sizes of a Routing: at most `rows` rows, each assigned to `used` of `experts` experts.
struct RoutingSizes {
  int64_t rows = 0, experts = 0, used = 0, hidden = 0, ffn = 0;
};

/// The ordered head of a drafter, whose tokens are grouped in clusters.
struct ClusterMatrices {
  std::unique_ptr<MatrixSet> clusters;  // head rows of each cluster: [tokens of a cluster, hidden]
  Mirror<int32_t> tokens;               // [clusters][tokens of a cluster], ascending in each
};

/// K and V of one layer in `capacity` slots; position p is stored in slot p % capacity.
class KvLayer {
 public:
  virtual ~KvLayer() = default;
  int64_t kv_heads = 0, head_dim = 0, capacity = 0, bytes = 0;

  /// Export and import K and V of positions 16 b .. 16 b + 15, for saving them or copying them to
  /// another cache with the same heads and type. The bytes do not depend on capacity or instruction
  /// set.
  virtual int64_t block_bytes() const = 0;
  virtual void get_block(int64_t b, uint8_t* to) const = 0;
  virtual void put_block(int64_t b, const uint8_t* from) = 0;
  /// Zeroes what a block from get_block() has besides K and V of its slots first .. end - 1: what
  /// lay in the memory before, or belongs to another text.
  virtual void keep_slots(uint8_t* block, int64_t first, int64_t end) const = 0;
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

/// y = gelu(x G^T) * (x U^T), elementwise: the gated half of a feed-forward. G and U have the same
/// shape. Without U, y = gelu(x G^T) * factor.
struct GatedJob {
  const Matrix* gate = nullptr;
  const Matrix* up = nullptr;
  Device<const float> x;
  int64_t x_stride = 0;
  int64_t m = 0;
  Device<float> y;  // [m] rows of gate->rows floats
  int64_t y_stride = 0;
  Device<const float> factor = {};  // [m] rows of gate->rows floats
  int64_t factor_stride = 0;
};

/// y = rms(x) * weight * scale, of rows x; y and weight are as wide as x.
struct NormResult {
  Device<const float> weight;
  Device<float> y;
  float scale = 1.0f;
};

/// What a branch adds to rows x: x becomes (x + rms(y * before) * weight) * after.
struct Branch {
  Device<float> y;             // [m, n]; overwritten
  Device<const float> weight;  // [n]
  float before = 1.0f, after = 1.0f;
};

/// The largest of a row of logits, the first if several are equal. If any logit is NaN or
/// +infinity, the first such logit.
struct BestLogit {
  int32_t index = 0;
  float logit = 0;
};

/// Passes that a backend has recorded, by their shapes. They belong to the object whose memory they
/// use, and go with it.
class Recordings {
 public:
  virtual ~Recordings() = default;
};

/// Called before a product with the matrix loaded from `source`; x is m rows of w.cols floats,
/// `stride` apart.
using Observer =
    std::function<void(const WeightSource& source, const float* x, int64_t stride, int64_t m)>;

/// The memory for weights, K/V and buffers.
class Storage {
 public:
  virtual ~Storage() = default;

  /// Allocates n floats, all zero.
  virtual Buffer alloc(int64_t n) = 0;
  /// Allocates n mirrored values, all zero.
  template <class T>
  Mirror<T> mirror(int64_t n) {
    return {mirrored(n * static_cast<int64_t>(sizeof(T))), n};
  }
  /// Copy n values from the host to the backend and back, synchronously.
  template <class T>
  void write(const T* from, int64_t n, Device<T> to) {
    write_bytes(from, to.address(), n * static_cast<int64_t>(sizeof(T)));
  }
  template <class T>
  void read(Device<const T> from, int64_t n, T* to) {
    read_bytes(from.address(), to, n * static_cast<int64_t>(sizeof(T)));
  }

  /// Lays out the rows of `source`: all of them in order, or the listed ones of a source in memory.
  /// Throws Error{kFile} for non-finite weights or scales, and for a file that cannot be read.
  /// `progress` may be empty; it is called only when all rows are loaded.
  virtual std::unique_ptr<Matrix> load_matrix(const WeightSource& source,
                                              const std::vector<int32_t>* rows = nullptr,
                                              const LoadProgress& progress = {}) = 0;
  /// Reads all rows of `source` into the host's memory, in the layout of the file.
  virtual AlignedBytes read(const WeightSource& source) = 0;
  virtual std::unique_ptr<KvLayer> make_kv(int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                           bool f16) = 0;
  virtual std::unique_ptr<Routing> make_routing(const RoutingSizes& sizes) = 0;
  virtual std::unique_ptr<MatrixSet> make_set(std::vector<MatrixPtr> matrices) {
    return std::make_unique<MatrixSet>(std::move(matrices));
  }
  virtual std::unique_ptr<Recordings> make_recordings() { return std::make_unique<Recordings>(); }

 private:
  virtual MirroredBytes mirrored(int64_t bytes) = 0;
  virtual void write_bytes(const void* host, void* device, int64_t bytes) = 0;
  virtual void read_bytes(const void* device, void* host, int64_t bytes) = 0;
};

class Backend : public Storage {
 public:
  virtual std::string device() const = 0;  // e.g. "cpu"
  virtual std::string isa() const = 0;     // of the CPU, which every device uses too: "avx2"
  std::string name() const { return device() + "/" + isa(); }
  /// Names the device, and the driver that its results depend on, in one line.
  virtual std::string identity() const { return name(); }
  /// The backend of the CPU, which every other one uses, too: this one, if it is that.
  virtual Backend& host() { return *this; }
  /// Whether the memory is not the host's. Mirrored values then take as much of the host's, too.
  virtual bool own_memory() const { return false; }
  /// Bytes that may still be allocated; 0: unknown.
  virtual uint64_t available() const = 0;
  virtual int threads() const = 0;

  /// While a Pass exists, operations follow each other closely, so threads stay awake between them.
  /// When `*stop` (optional) becomes true, operations end within about a millisecond and their
  /// results are undefined.
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

  /// y[i] = table[rows.ids[first + i]][col .. col + n) * scale, on the host and at once; y is [m,
  /// n]. Tables are not read when they are loaded, so damage is detected here: throws Error{kFile}
  /// for a NaN or infinite value, and for a file that has changed since it was opened.
  virtual void embed(const WeightSource& table, const PassRows& rows, int64_t first, int64_t m,
                     int64_t col, int64_t n, float scale, float* y) = 0;

  /// From now on `observer` is called for each product, except those with matrices of listed rows.
  void observe(Observer observer) { observer_ = std::move(observer); }

  // All operations below are enqueued. They are executed in order and are complete, with any error
  // thrown, by the time wait() returns. Mirrored values that are sent must not change until then.

  /// Runs `body`, which enqueues the operations of a pass of `rows` and sends these itself. A
  /// backend that has recorded a body of the same shape may repeat the recording instead.
  /// Everything that can differ between two such bodies must therefore be part of the shape, or be
  /// sent. A body without a shape is not recorded: it may wait.
  virtual void run(Recordings& recordings, PassRows& rows, std::span<const int64_t> shape,
                   const std::function<void()>& body) {
    static_cast<void>(recordings);
    static_cast<void>(rows);
    static_cast<void>(shape);
    body();
  }
  /// Waits until all enqueued operations are done.
  virtual void wait() = 0;

  template <class T>
  void send(const Mirror<T>& mirror, int64_t at, int64_t n) {
    send_bytes(mirror.host() + at, (mirror.device() + at).address(), n * bytes_of<T>());
  }
  template <class T>
  void fetch(const Mirror<T>& mirror, int64_t at, int64_t n) {
    fetch_bytes((mirror.device() + at).address(), mirror.host() + at, n * bytes_of<T>());
  }
  /// Where this backend finds mirrored values, its own or another's: that of the CPU uses those of
  /// the host.
  template <class T>
  Device<T> at(const Mirror<T>& mirror) const {
    return own_memory() ? mirror.device() : Device<T>(mirror.host());
  }
  /// Sends all of the rows.
  virtual void send(PassRows& rows) = 0;

  /// Computes all products at once; jobs with the same x share its quantization.
  void matmul(const std::vector<MatmulJob>& jobs) {
    if (observer_)
      for (const MatmulJob& job : jobs) observe_product(*job.w, job.x, job.x_stride, job.m);
    multiply(jobs);
  }
  void gated_matmul(const std::vector<GatedJob>& jobs) {
    if (observer_)
      for (const GatedJob& job : jobs)
        for (const Matrix* w : {job.gate, job.up})
          if (w) observe_product(*w, job.x, job.x_stride, job.m);
    multiply_gated(jobs);
  }
  /// logits = cap * tanh(x W^T / cap), or x W^T if cap is 0; x is [m, W.cols]. The logits of row i
  /// go to logits[i], [W.rows]; if logits[i] is null, only the best logit of the row goes to
  /// best[i].
  virtual void head(const Matrix& w, Device<const float> x, int64_t m, float cap,
                    std::span<const Device<float>> logits, Device<BestLogit> best) = 0;

  // Row-wise operations on [m, n]; see kernels.h for the exact arithmetic.
  /// Up to 3 norms of the same rows. y may be x if there is one.
  virtual void norm(Device<const float> x, int64_t m, int64_t n, float eps,
                    const std::vector<NormResult>& results) = 0;
  /// Adds the branch to x, in place. Then, as norm(): norms of the new x.
  virtual void add_branch(const Branch& branch, int64_t m, int64_t n, float eps, Device<float> x,
                          const std::vector<NormResult>& results) = 0;
  /// Copies n floats.
  virtual void copy(Device<const float> from, int64_t n, Device<float> to) = 0;
  /// x = cap * tanh(x / cap), n values in place.
  virtual void softcap(Device<float> x, int64_t n, float cap) = 0;
  /// Assigns each of m rows to the experts with its largest scores, best first; of equal scores the
  /// first wins. The weights are softmax over all scores [m, experts], renormalised over the chosen
  /// experts, times the expert's scale [experts]; computed in floats, with the kernels' exp.
  virtual void route(Device<const float> scores, Device<const float> scale, int64_t m,
                     Routing& to) = 0;
  /// y[i] = sum over the experts of row i, best first, of weight * expert(x[i]); x and y, which
  /// may be x, are [m, hidden], with the m of route().
  virtual void expert_feed_forward(const ExpertMatrices& w, Device<const float> x, int64_t m,
                                   Routing& routing, Device<float> y) = 0;

  /// Computes logits of the tokens in the `top` clusters with the best scores; of equal scores the
  /// first wins. scores: [clusters], x: [hidden]; ids and logits: [top * tokens of a cluster] each,
  /// ascending by id.
  virtual void cluster_head(const ClusterMatrices& w, Device<const float> scores, int64_t top,
                            Device<const float> x, Device<int32_t> ids, Device<float> logits) = 0;

  /// Whether embed_best() can take rows of this matrix.
  virtual bool embeds_best(const Matrix&) const { return false; }
  /// Sets *id to the token of the largest of n logits, the first if several are equal: ids[i] of
  /// logit i, or i without ids. y = its row of the table * scale, as embed() gives it.
  virtual void embed_best(const Matrix& table, float scale, Device<const float> logits, int64_t n,
                          Device<const int32_t> ids, Device<int32_t> id, Device<float> y);

  // The operations below are for the rows first .. first + m - 1 of a pass. Those on K/V use the
  // K/V of layer `layer` of each row's own sequence.
  /// Norms and rotates the heads of queries and keys, norms those of the values, and stores keys
  /// and values at the positions of the rows. The rows have new keys and values, if the layer has
  /// any, and the last `keep` of them have queries.
  virtual void finish_heads(const PassRows& rows, const RowsOfLayers& of_type, int layer,
                            int64_t first, int64_t m, int64_t keep, const NewHeads& heads) = 0;
  /// out[i][h] = softmax(q[i][h] . K) V over the row's span, without a scale; q and out are [m,
  /// heads, d].
  virtual void attention(const PassRows& rows, const RowsOfLayers& of_type, int layer,
                         int64_t first, int64_t m, Device<const float> q, int64_t heads,
                         Device<float> out) = 0;

 protected:
  bool observed() const { return static_cast<bool>(observer_); }
  void observe_product(const Matrix& w, Device<const float> x, int64_t stride, int64_t m);

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

  Observer observer_;
};

/// Makes the CPU backend. threads >= 1; isa as in select_kernels().
std::unique_ptr<Backend> make_cpu_backend(int threads, const std::string& isa);

}  // namespace gemtp
