// Products of activations with packed matrices, as launches of the kernels in kernels/matmul.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/gpu/gpu_objects.h"
#include "backend/gpu/launches.h"

namespace gemtp::gpu {

/// What the kernels read of a matrix.
PackedMatrix packed(const Matrix& w);

class Products {
 public:
  explicit Products(Launches& launches) : launches_(launches) {}

  void multiply(const std::vector<MatmulJob>& jobs);
  void multiply_gated(const std::vector<GatedJob>& jobs);

  /// One row with the matrices of `set` in `list`, of which there are `count`: y is [count, rows].
  void multiply_listed(const MatrixSet& set, Device<const float> x, Global<const MatrixRows> list,
                       int64_t count, Global<float> y);

  // Experts. The rows of m tokens are gathered into r.in, by place; r.gated follows of them, and
  // r.out of that.
  void gather_input(const GpuRouting& r, const GpuMatrix& gate, Device<const float> x, int64_t m);
  void multiply_gated(const GpuRouting& r, const ExpertMatrices& w, int64_t m);
  void multiply_down(const GpuRouting& r, const MatrixSet& down, int64_t m);
  /// Rows of [m, hidden] by place: g says from where to where.
  void gather(const GpuRouting& r, GatherArguments g, int64_t m);

 private:
  MatmulArguments product(const Matrix& w, Device<const float> x, int64_t x_stride, int64_t m);
  MatmulArguments product_of_places(const GpuRouting& r, const MatrixSet& set, uint64_t x,
                                    int64_t m);
  void run(const GpuMatrix& w, const MatmulArguments& a, const char* activation);
  void run_listed(const MatrixSet& set, MatmulArguments& a, int64_t places, const char* activation);
  void run_panels(const GpuMatrix& w, const MatmulArguments& a, const char* activation);

  Launches& launches_;
};

}  // namespace gemtp::gpu
