// The operations a backend offers to the model code. Each is one fused grain of a forward pass,
// works on m independent rows, and gives every row the same bits whatever m is and whatever the
// other rows are (batch invariance): that is what makes draft-verify print the text of plain
// decoding.
//
// Buffers are float arrays in the backend's memory (for the CPU: host memory).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

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
  int64_t bytes = 0;   // read by one pass over it
  float scale = 1.0f;  // of every product with it
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
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t m = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

/// y = gelu(x G^T) * (x U^T), element by element: the gated half of a feed-forward. G and U have
/// the same shape.
struct GatedJob {
  const Matrix* gate = nullptr;
  const Matrix* up = nullptr;
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t m = 0;
  float* y = nullptr;  // [m] rows of gate->rows floats
  int64_t y_stride = 0;
};

/// The largest of a row of logits, the first of equal ones; or the first that is NaN or +infinity,
/// if one is.
struct BestLogit {
  int32_t index = 0;
  float logit = 0;
};

/// The positions one query row attends to, both inclusive.
struct AttentionSpan {
  int64_t first = 0, last = 0;
};

/// Rotation angles of m rows: cos and sin, [m, half] each.
struct RopeRows {
  const float* cos = nullptr;
  const float* sin = nullptr;
  int64_t half = 0;
};

/// Frees what alloc() gave.
struct BufferDeleter {
  void operator()(float* p) const;
};
using Buffer = std::unique_ptr<float[], BufferDeleter>;

/// Where weights, K/V and buffers live.
class Storage {
 public:
  virtual ~Storage() = default;

  /// n floats, 64-byte aligned, zero.
  virtual Buffer alloc(int64_t n) = 0;

  /// Lays out the rows of `source`: all, in order, or those listed of rows in memory. Error{kFile}
  /// for non-finite weights or scales, and for a file that cannot be read. `progress` may be empty;
  /// it watches a source of which all rows are read.
  virtual std::unique_ptr<Matrix> load_matrix(const WeightSource& source,
                                              const std::vector<int32_t>* rows = nullptr,
                                              const LoadProgress& progress = {}) = 0;
  /// All rows of `source`, as they lie in the file.
  virtual AlignedBytes read(const WeightSource& source) = 0;
  virtual std::unique_ptr<KvLayer> make_kv(int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                           bool f16) = 0;
};

class Backend : public Storage {
 public:
  virtual std::string name() const = 0;  // e.g. "cpu/avx2"
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

  /// y[i] = table[ids[i]][col .. col + n) * scale; y is [m, n]. Tables are not read when they are
  /// loaded, so here is where damage shows: Error{kFile} for a NaN or infinite value, and for a
  /// file that is not what it was when it was opened.
  virtual void embed(const WeightSource& table, const int32_t* ids, int64_t m, int64_t col,
                     int64_t n, float scale, float* y) = 0;
  /// All products at once; jobs with the same x share its quantization.
  virtual void matmul(const std::vector<MatmulJob>& jobs) = 0;
  virtual void gated_matmul(const std::vector<GatedJob>& jobs) = 0;
  /// logits = cap * tanh(x W^T / cap), or x W^T where cap is 0; x is [m, W.cols]. Those of row i go
  /// to logits[i], [W.rows]; where that is null only the best of the row is kept: best is [m].
  virtual void head(const Matrix& w, const float* x, int64_t m, float cap, float* const* logits,
                    BestLogit* best) = 0;

  // Element-wise and row-wise operations on [m, n]; see kernels.h for the exact arithmetic.
  virtual void rms_norm(const float* x, const float* w, int64_t m, int64_t n, float eps,
                        float* y) = 0;
  virtual void rms_norm_add(const float* x, const float* w, int64_t m, int64_t n, float eps,
                            const float* r, float* y) = 0;
  virtual void gelu_mul(const float* gate, const float* up, int64_t m, int64_t n, float* y) = 0;
  virtual void scale(const float* x, float s, int64_t m, int64_t n, float* y) = 0;
  virtual void softcap(const float* x, int64_t m, int64_t n, float cap, float* y) = 0;
  /// y[i] = x[rows[i]]; y is [m, n].
  virtual void gather(const float* x, const int32_t* rows, int64_t m, int64_t n, float* y) = 0;
  /// y[i] = sum over j of weights[i][j] * x[rows[i][j]], in order of j; y is [m, n], rows and
  /// weights [m, terms].
  virtual void weighted_sum(const float* x, const int32_t* rows, const float* weights, int64_t m,
                            int64_t terms, int64_t n, float* y) = 0;

  /// In place on x [m, heads, d]: RMS norm of each head (weight w [d], or none), then the rotation
  /// of its row (rope may be null: values are not rotated).
  virtual void head_norm_rope(float* x, const float* w, int64_t m, int64_t heads, int64_t d,
                              float eps, const RopeRows* rope) = 0;

  /// Stores k and v, [m, kv_heads, d], at positions first .. first + m - 1.
  virtual void store_kv(KvLayer& kv, const float* k, const float* v, int64_t first, int64_t m) = 0;
  /// out[i][h] = softmax(q[i][h] . K) V over spans[i]; q and out are [m, heads, d]. Scale 1.
  virtual void attention(const KvLayer& kv, const float* q, int64_t m, int64_t heads,
                         const AttentionSpan* spans, float* out) = 0;

 private:
  virtual void begin_pass(const std::atomic<bool>* stop) = 0;
  virtual void end_pass() = 0;
};

/// The CPU backend. threads >= 1; isa as in select_kernels().
std::unique_ptr<Backend> make_cpu_backend(int threads, const std::string& isa);

}  // namespace gemtp
