#include "backend/cpu/cpu_matmul.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/scalar_math.h"
#include "base/error.h"
#include "base/largest.h"

namespace gemtp {
namespace {

// Pieces per thread: enough that a thread which was descheduled does not hold up the others.
constexpr int64_t kPiecesPerThread = 4;

// Product of weight bytes and rows below which waking other threads costs more than it saves.
constexpr int64_t kSerialBytes = 128 << 10;

// The same limit for the quantization of activations, in floats.
constexpr int64_t kSerialFloats = 16384;

// Bytes of the weights of a group of tiles: half of a usual second-level cache.
constexpr int64_t kGroupBytes = 256 << 10;

const CpuMatrix& cpu(const Matrix& m) { return static_cast<const CpuMatrix&>(m); }

// Returns the best of n logits; x[0] has the index `first`.
BestLogit best_of(const float* x, int64_t n, int64_t first) {
  const Largest top = largest(x, n);
  const float* at =
      top.damaged ? std::find_if(x, x + n, damaged_logit) : std::find(x, x + n, top.value);
  return {static_cast<int32_t>(first + (at - x)), *at};
}

// Returns the better of a and b; all indices behind a are smaller than those behind b.
BestLogit better(const BestLogit& a, const BestLogit& b) {
  if (damaged_logit(a.logit)) return a;
  return damaged_logit(b.logit) || b.logit > a.logit ? b : a;
}

}  // namespace

CpuMatmul::CpuMatmul(const gemtp_kernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), results_(static_cast<size_t>(pool.threads())) {}

size_t CpuMatmul::add_input(const Matrix& w, const float* x, int64_t x_stride, int64_t m) {
  const bool quantize = quantized(w.type);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const Input& in = inputs_[i];
    if (in.x == x && in.x_stride == x_stride && in.m == m && in.k == w.cols &&
        in.quantize == quantize)
      return i;
  }
  inputs_.push_back({x, x_stride, m, w.cols, quantize, {}});
  return inputs_.size() - 1;
}

void CpuMatmul::quantize_inputs() {
  int64_t rows = 0, quants = 0;
  for (const Input& in : inputs_) {
    if (!in.quantize) continue;
    rows += in.m;
    quants += in.m * in.k;
  }
  if (rows == 0) return;
  const int64_t blocks = quants / GEMTP_BLOCK;
  gemtp_q8_rows free = {quants_.ensure(quants), scales_.ensure(blocks), biases_.ensure(blocks),
                        pairs_.ensure(2 * blocks), sums_.ensure(blocks)};
  for (Input& in : inputs_) {
    if (!in.quantize) continue;
    in.q = free;
    free = gemtp_q8_next(free, in.m * in.k / GEMTP_BLOCK);
  }
  const auto quantize = [&](const Input& in, int64_t i) {
    const int64_t panel = i / GEMTP_PANEL * GEMTP_PANEL;          // its first row
    const int64_t at = panel * (in.k / GEMTP_BLOCK) + i - panel;  // the row's first block
    kernels_.quantize_q8(in.x + i * in.x_stride, in.k, std::min<int64_t>(GEMTP_PANEL, in.m - panel),
                         gemtp_q8_next(in.q, at));
  };
  const int64_t grain = quants < kSerialFloats
                            ? rows
                            : std::max<int64_t>(1, rows / (pool_.threads() * kPiecesPerThread));
  pool_.parallel_for(rows, grain, [&](int64_t begin, int64_t end, int) {
    int64_t first = 0;  // row of the first input among all
    for (const Input& in : inputs_) {
      if (!in.quantize) continue;
      for (int64_t i = std::max(begin, first); i < std::min(end, first + in.m); ++i)
        quantize(in, i - first);
      first += in.m;
    }
  });
}

// Cuts the tiles of all jobs into pieces; job j has the tiles from first_tile[j] to
// first_tile[j + 1]. Calls fn(job, first tile, end, thread), with tiles counted from the job's
// first.
template <class Fn>
void CpuMatmul::for_each_piece(const std::vector<int64_t>& first_tile, int64_t bytes,
                               const Fn& fn) {
  const int64_t tiles = first_tile.back();
  const int64_t pieces = bytes < kSerialBytes ? 1 : pool_.threads() * kPiecesPerThread;
  const int64_t grain = std::max<int64_t>(1, (tiles + pieces - 1) / pieces);
  pool_.parallel_for(tiles, grain, [&](int64_t begin, int64_t end, int thread) {
    auto j = static_cast<size_t>(std::upper_bound(first_tile.begin(), first_tile.end(), begin) -
                                 first_tile.begin() - 1);
    for (; begin < end; ++j) {
      const int64_t stop = std::min(end, first_tile[j + 1]);
      if (begin < stop) fn(j, begin - first_tile[j], stop - first_tile[j], thread);
      begin = stop;
    }
  });
}

// Multiplies by the tiles from begin to end - 1; their first output row goes to y.
gemtp_matmul CpuMatmul::call(const CpuMatrix& w, const Input& input, int64_t begin, int64_t end,
                             float* y, int64_t y_stride) const {
  gemtp_matmul c{};
  c.weights = w.data.get() + begin * w.tile_bytes;
  c.tile_bytes = w.tile_bytes;
  c.k = w.cols;
  c.tiles = end - begin;
  c.tiles_behind = w.tiles() - end;
  c.rows = std::min(end * GEMTP_TILE, w.rows) - begin * GEMTP_TILE;
  c.m = input.m;
  c.x = input.x;
  c.x_stride = input.x_stride;
  c.xq = input.q;
  c.table = packed_form(w.type).table;
  c.y = y;
  c.y_stride = y_stride;
  return c;
}

void CpuMatmul::run(const Matrix& w, const gemtp_matmul& call) const {
  kernels_.matmul[packed_form(w.type).format](&call);
  if (w.scale == 1.0f) return;
  for (int64_t i = 0; i < call.m; ++i) {
    float* row = call.y + i * call.y_stride;
    kernels_.scale(row, w.scale, call.rows, row);
  }
}

void CpuMatmul::products(const std::vector<MatmulJob>& jobs) {
  std::vector<int64_t> first_tile{0};
  std::vector<size_t> input;
  int64_t bytes = 0;
  inputs_.clear();
  for (const MatmulJob& job : jobs) {
    input.push_back(add_input(*job.w, job.x.address(), job.x_stride, job.m));
    first_tile.push_back(first_tile.back() + cpu(*job.w).tiles());
    bytes += job.w->bytes * job.m;
  }
  quantize_inputs();
  for_each_piece(first_tile, bytes, [&](size_t j, int64_t begin, int64_t end, int) {
    const MatmulJob& job = jobs[j];
    run(*job.w, call(cpu(*job.w), inputs_[input[j]], begin, end,
                     (job.y + begin * GEMTP_TILE).address(), job.y_stride));
  });
}

// Returns how many tiles make a group whose weights and results stay in the cache until they have
// been processed: a multiple of the number that kernels read side by side.
int64_t CpuMatmul::tiles_per_group(int64_t tile_bytes, int64_t m) const {
  const int64_t per_tile = tile_bytes + m * GEMTP_TILE * static_cast<int64_t>(sizeof(float));
  return std::max<int64_t>(8, kGroupBytes / per_tile / 8 * 8);
}

void CpuMatmul::gated(const std::vector<GatedJob>& jobs) {
  std::vector<int64_t> first_tile{0};
  std::vector<size_t> gate_input, up_input;
  int64_t bytes = 0;
  inputs_.clear();
  for (const GatedJob& job : jobs) {
    GEMTP_ASSERT(!job.up || (job.up->rows == job.gate->rows && job.up->cols == job.gate->cols));
    gate_input.push_back(add_input(*job.gate, job.x.address(), job.x_stride, job.m));
    up_input.push_back(job.up ? add_input(*job.up, job.x.address(), job.x_stride, job.m) : 0);
    first_tile.push_back(first_tile.back() + cpu(*job.gate).tiles());
    bytes += (job.gate->bytes + (job.up ? job.up->bytes : 0)) * job.m;
  }
  quantize_inputs();
  for_each_piece(first_tile, bytes, [&](size_t j, int64_t begin, int64_t end, int thread) {
    const GatedJob& job = jobs[j];
    const CpuMatrix& gate = cpu(*job.gate);
    const CpuMatrix* up = job.up ? &cpu(*job.up) : nullptr;
    const int64_t group = tiles_per_group(gate.tile_bytes + (up ? up->tile_bytes : 0), job.m);
    for (; begin < end; begin += group) {
      const int64_t stop = std::min(end, begin + group), first = begin * GEMTP_TILE;
      const int64_t n = std::min(stop * GEMTP_TILE, gate.rows) - first;
      const float* factor = up ? nullptr : (job.factor + first).address();
      int64_t factor_stride = job.factor_stride;
      run(gate,
          call(gate, inputs_[gate_input[j]], begin, stop, (job.y + first).address(), job.y_stride));
      if (up) {
        float* ups = results_[static_cast<size_t>(thread)].ensure(job.m * n);
        run(*up, call(*up, inputs_[up_input[j]], begin, stop, ups, n));
        factor = ups;
        factor_stride = n;
      }
      for (int64_t i = 0; i < job.m; ++i) {
        float* y = (job.y + i * job.y_stride + first).address();
        kernels_.gelu_mul(y, factor + i * factor_stride, n, y);
      }
    }
  });
}

void CpuMatmul::head(const Matrix& matrix, const float* x, int64_t m, float cap,
                     std::span<const Device<float>> logits, BestLogit* best) {
  inputs_.clear();
  add_input(matrix, x, matrix.cols, m);
  quantize_inputs();
  const CpuMatrix& w = cpu(matrix);
  const int64_t group = tiles_per_group(w.tile_bytes, m);
  const int64_t groups = (w.tiles() + group - 1) / group;
  const int64_t grain = std::max<int64_t>(1, groups / (pool_.threads() * kPiecesPerThread));
  best_.resize(static_cast<size_t>(groups * m));
  pool_.parallel_for(groups, grain, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t tile = g * group, stop = std::min(w.tiles(), tile + group);
      const int64_t first = tile * GEMTP_TILE, n = std::min(stop * GEMTP_TILE, w.rows) - first;
      float* y = results_[static_cast<size_t>(thread)].ensure(m * n);
      run(w, call(w, inputs_[0], tile, stop, y, n));
      for (int64_t i = 0; i < m; ++i) {
        float* row = y + i * n;
        if (cap > 0) kernels_.softcap(row, n, cap, row);
        best_[static_cast<size_t>(g * m + i)] = best_of(row, n, first);
        const Device<float> kept = logits[static_cast<size_t>(i)];
        if (kept)
          std::memcpy((kept + first).address(), row, static_cast<size_t>(n) * sizeof(float));
      }
    }
  });
  for (int64_t i = 0; i < m; ++i) {
    best[i] = best_[static_cast<size_t>(i)];
    for (int64_t g = 1; g < groups; ++g)
      best[i] = better(best[i], best_[static_cast<size_t>(g * m + i)]);
  }
}

}  // namespace gemtp
