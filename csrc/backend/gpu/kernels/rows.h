// Norms of rows, with what is added and quantized around them.
#pragma once

#include "backend/gpu/kernels/arguments.h"
#include "backend/gpu/kernels/math.h"
#include "backend/gpu/kernels/quantize.h"

namespace gemtp {
namespace gpu {

/// 1 / sqrt(mean of squares + eps) of the row x * before: 16 chains side by side, folded. All
/// threads of the block call it; each has the result.
template <int kThreads>
struct RowNorm {
  GPU_INT kPiece = 4096;  // floats that wait for the chains
  struct Memory {
    SharedArray<float, kPiece> piece;
    SharedArray<float, 1> inverse;
  };

  static GPU_INLINE float inverse_rms(Global<const float> x, int n, float before, float eps,
                                      GPU_SHARED Memory& memory, Place at) {
    float sum = 0;
    for (int first = 0; first < n; first += kPiece) {
      const int left = n - first, count = left < kPiece ? left : kPiece;
      for (int i = at.index; i < count; i += kThreads)
        memory.piece[i] = flushed(x[first + i] * before);
      barrier();
      if (at.warp == 0) {
        for (int i = at.lane % 16; i < count; i += 16) {
          const float v = memory.piece[i];
          sum = fused(v, v, sum);
        }
      }
      barrier();
    }
    if (at.warp == 0) {
      sum = fold16(sum, at.lane);
      if (at.lane == 0) memory.inverse[0] = 1.0f / root(sum / float(n) + eps);
    }
    barrier();
    return memory.inverse[0];
  }
};

struct Norm {
  using Arguments = NormArguments;
  GPU_INT kThreads = 256, kWarps = kThreads / 32;
  using Memory = RowNorm<kThreads>::Memory;

  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory& memory, Place at) {
    const int64_t row = int64_t(at.block) * a.n;
    const Global<const float> residual = a.residual + row;
    Global<const float> sum = residual;
    if (a.branch) {
      const Global<const float> branch = a.branch + row;
      const Global<float> y = a.y + row;
      const float inv = RowNorm<kThreads>::inverse_rms(branch, a.n, a.before, a.eps, memory, at);
      for (int i = at.index; i < a.n; i += kThreads) {
        const float v = (flushed(branch[i] * a.before) * inv) * a.weight[i];
        y[i] = flushed(flushed(residual[i] + v) * a.after);
      }
      sum = y;  // of which each thread reads what it has written
    }
    float inv = 0;
    if (a.output[0].weight || a.output[1].weight || a.output[2].weight)
      inv = RowNorm<kThreads>::inverse_rms(sum, a.n, 1.0f, a.eps, memory, at);
    for (int i = 0; i < 3; ++i)
      if (a.output[i].wanted) give(a, a.output[i], sum, inv, at);
  }

  static GPU_INLINE void give(GPU_CONSTANT Arguments& a, GPU_CONSTANT NormOutput& out,
                              Global<const float> sum, float inv, Place at) {
    const int64_t row = int64_t(at.block) * a.n;
    for (int first = at.warp * 32; first < a.n; first += kWarps * 32) {
      const int i = first + at.lane;
      const bool exists = i < a.n;
      float v = exists ? sum[i] : 0.0f;
      if (exists && out.weight) v = flushed(flushed((v * inv) * out.weight[i]) * out.scale);
      if (exists && out.y) out.y[row + i] = v;
      if (out.quantized) quantize_block(v, at.lane, out.quantized, (row + first) / 32);
    }
  }
};

}  // namespace gpu
}  // namespace gemtp
