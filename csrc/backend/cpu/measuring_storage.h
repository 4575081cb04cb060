// A storage that stores nothing and counts the memory that objects made on it would take.
#pragma once

#include <cstdint>
#include <set>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

namespace gemtp {

class MeasuringStorage : public Storage {
 public:
  // Bytes requested so far, at most the largest int64.
  int64_t buffers() const { return buffers_; }  // including what is mirrored
  int64_t mirrored() const { return mirrored_; }
  int64_t matrices() const { return matrices_; }
  int64_t kv() const { return kv_; }
  /// Columns of the widest matrix.
  int64_t max_cols() const { return max_cols_; }
  /// Packed formats of the matrices.
  const std::set<gemtp_format>& formats() const { return formats_; }

  /// Returns an empty buffer.
  Buffer alloc(int64_t n) override;
  std::unique_ptr<Matrix> load_matrix(const WeightSource& source, const std::vector<int32_t>* rows,
                                      const LoadProgress& progress) override;
  /// Returns null.
  AlignedBytes read(const WeightSource& source) override;
  std::unique_ptr<KvLayer> make_kv(int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                   bool f16) override;
  std::unique_ptr<Routing> make_routing(const RoutingSizes& sizes) override;

 private:
  MirroredBytes mirrored(int64_t bytes) override;
  void write_bytes(const void*, void*, int64_t) override {}
  void read_bytes(const void*, void*, int64_t) override {}

  int64_t buffers_ = 0, mirrored_ = 0, matrices_ = 0, kv_ = 0, max_cols_ = 0;
  std::set<gemtp_format> formats_;
};

}  // namespace gemtp
