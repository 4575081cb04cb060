// Between the products with the matrices of q, k and v and attention: norm and rotation of every
// head, and the store of keys and values.
#pragma once

#include "backend/gpu/kernels/arguments.h"
#include "backend/gpu/kernels/rows.h"

namespace gemtp {
namespace gpu {

/// Element i of an array of keys or values.
struct FloatKv {
  static GPU_INLINE float load(Global<const uint8_t> array, int64_t i) {
    return as_global<const float>(array)[i];
  }
  static GPU_INLINE void store(Global<uint8_t> array, int64_t i, float value) {
    as_global<float>(array)[i] = value;
  }
};
struct HalfKv {
  static GPU_INLINE float load(Global<const uint8_t> array, int64_t i) {
    return half_to_float(as_global<const uint16_t>(array)[i]);
  }
  static GPU_INLINE void store(Global<uint8_t> array, int64_t i, float value) {
    as_global<uint16_t>(array)[i] = float_to_half(value);
  }
};

template <class Kv>
struct Heads {
  using Arguments = HeadsArguments;
  GPU_INT kThreads = 128, kMost = 1024;  // of dims
  using HeadNorm = RowNorm<kThreads>;
  struct Memory {
    typename HeadNorm::Memory norm;
    SharedArray<float, kMost> head;  // normed
  };

  static GPU_INLINE void run(GPU_CONSTANT Arguments& a, GPU_SHARED Memory& memory, Place at) {
    const bool is_q = at.block < a.heads, is_k = !is_q && at.block < a.heads + a.kv_heads;
    const int head = is_q ? at.block : is_k ? at.block - a.heads : at.block - a.heads - a.kv_heads;
    const int row = is_q ? at.row - a.q_skip : at.row;
    if (row < 0) return;
    Global<const float> x = is_q ? Global<const float>(a.q) : is_k ? a.k : a.v;
    x = x + (int64_t(row) * (is_q ? a.heads : a.kv_heads) + head) * a.d;
    const Global<const float> weight = is_q ? a.q_weight : a.k_weight;
    const float inv = HeadNorm::inverse_rms(x, a.d, 1.0f, a.eps, memory.norm, at);
    for (int i = at.index; i < a.d; i += kThreads)
      memory.head[i] = flushed(is_q || is_k ? (x[i] * inv) * weight[i] : x[i] * inv);
    barrier();
    const Global<float> q = a.q + (int64_t(row) * a.heads + head) * a.d;
    for (int i = at.index; i < a.d; i += kThreads) {
      const float v = is_q || is_k ? rotated(a, memory, i, at.row) : float(memory.head[i]);
      if (is_q)
        q[i] = v;
      else
        put(a, is_k, head, at.row, i, v);
    }
  }

  static GPU_INLINE float rotated(GPU_CONSTANT Arguments& a, GPU_SHARED Memory& memory, int i,
                                  int row) {
    const int half_d = a.d / 2, pair = i < half_d ? i : i - half_d;
    const float c = a.cos[int64_t(row) * half_d + pair], s = a.sin[int64_t(row) * half_d + pair];
    const float first = memory.head[pair], second = memory.head[pair + half_d];
    return flushed(i < half_d ? fused(-second, s, first * c) : fused(first, s, second * c));
  }

  // Element i of the key or the value of a row.
  static GPU_INLINE void put(GPU_CONSTANT Arguments& a, bool key, int head, int row, int i,
                             float v) {
    const KvPlace kv = a.kv[a.sequence[row]];
    const int slot = a.positions[row] % kv.capacity;
    if (key)
      Kv::store(kv.keys + head * kv.key_bytes, (slot / 16 * int64_t(a.d) + i) * 16 + slot % 16, v);
    else
      Kv::store(kv.values + head * kv.value_bytes,
                (i / 16 * int64_t(kv.capacity) + slot) * 16 + i % 16, v);
  }
};

}  // namespace gpu
}  // namespace gemtp
