// The plain kernels. They define the bits; every other table is compared with them by memcmp.
#include <cmath>
#include <cstring>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar_math.h"

namespace {

constexpr int kTile = GEMTP_TILE;
constexpr int kBlock = GEMTP_BLOCK;
constexpr int64_t kChunk = GEMTP_CHUNK;

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

void quantize_q8(const float* x, int64_t k, int64_t n, gemtp_q8_rows to) {
  for (int64_t b = 0; b < k / kBlock; ++b, to = gemtp_q8_next(to, n)) {
    const float* xb = x + b * kBlock;
    float amax = 0.0f;
    for (int i = 0; i < kBlock; ++i) {
      const float a = gemtp_f32_from_bits(gemtp_f32_bits(xb[i]) & 0x7fffffffu);
      amax = a > amax ? a : amax;
    }
    const bool zero = amax < GEMTP_TINY;
    *to.d = zero ? 0.0f : amax / 127.0f;
    const float id = zero ? 0.0f : 1.0f / *to.d;
    int32_t pairs[2][2] = {};
    for (int i = 0; i < kBlock; ++i) {
      const float scaled = xb[i] * id;  // NaN for a NaN, and for an infinity (whose id is 0)
      const int32_t v = static_cast<int32_t>(gemtp_rint(scaled > -127.0f ? scaled : -127.0f));
      to.q[i] = static_cast<int8_t>(v);
      pairs[i / 16][i / 2 % 2] += v;
    }
    gemtp_q8_sums(to, gemtp_two_int16(pairs[0][0], pairs[0][1]),
                  gemtp_two_int16(pairs[1][0], pairs[1][1]));
  }
}

// Calls fn(tile's weights, first row, number of rows that exist) for each requested tile.
template <class Fn>
void for_each_tile(const gemtp_matmul& a, Fn fn) {
  for (int64_t t = 0; t < a.tiles; ++t) {
    const int64_t first = t * kTile;
    const int64_t n = a.rows - first < kTile ? a.rows - first : kTile;
    fn(a.weights + t * a.tile_bytes, first, n);
  }
}

template <class T, float (*kToFloat)(T)>
void matmul_float(const gemtp_matmul* args) {
  const gemtp_matmul& a = *args;
  for_each_tile(a, [&](const uint8_t* tile, int64_t first, int64_t n) {
    const T* w = reinterpret_cast<const T*>(tile);
    for (int64_t i = 0; i < a.m; ++i) {
      const float* x = a.x + i * a.x_stride;
      for (int64_t r = 0; r < n; ++r) {
        float total = 0.0f;
        for (int64_t chunk = 0; chunk < a.k; chunk += kChunk) {
          float acc = 0.0f;
          for (int64_t k = chunk; k < smaller(chunk + kChunk, a.k); ++k)
            acc = gemtp_fma(kToFloat(w[k * kTile + r]), x[k], acc);
          total = total + acc;
        }
        a.y[i * a.y_stride + first + r] = gemtp_flush(total);
      }
    }
  });
}

float identity(float v) { return v; }
float from_f16(uint16_t v) { return gemtp_f16_to_f32(v); }
float from_bf16(uint16_t v) { return gemtp_bf16_to_f32(v); }

// ---- quantized matmuls: the two halves of a format ----------------------------------------------

// Quants: kBytes is the size of a block of 16 rows; an object returns element k of row r, 0 <= k
// < 32.

int nibble(const uint8_t* block, int64_t r, int k) {
  const int byte = block[(k % 16 / 4 * kTile + r) * 4 + k % 4];
  return k < 16 ? byte & 15 : byte >> 4;
}

struct Bytes {
  static constexpr int64_t kBytes = 512;
  static int quant(const uint8_t* block, int64_t r, int k, const int8_t*) {
    return static_cast<int8_t>(block[(k / 4 * kTile + r) * 4 + k % 4]);
  }
};

template <int kOffset>
struct Nibbles {
  static constexpr int64_t kBytes = 256;
  static int quant(const uint8_t* block, int64_t r, int k, const int8_t*) {
    return nibble(block, r, k) - kOffset;
  }
};

template <int kOffset>
struct Fives {
  static constexpr int64_t kBytes = 320;
  static int quant(const uint8_t* block, int64_t r, int k, const int8_t*) {
    const int high = block[256 + r * 4 + k % 4] >> (k / 4) & 1;
    return (high << 4 | nibble(block, r, k)) - kOffset;
  }
};

struct Sixes {
  static constexpr int64_t kBytes = 384;
  static int quant(const uint8_t* block, int64_t r, int k, const int8_t*) {
    const int high = block[256 + k / 16 * 64 + r * 4 + k % 4] >> (k % 16 / 4 * 2) & 3;
    return (high << 4 | nibble(block, r, k)) - 32;
  }
};

struct Table {
  static constexpr int64_t kBytes = 256;
  static int quant(const uint8_t* block, int64_t r, int k, const int8_t* table) {
    return table[nibble(block, r, k)];
  }
};

// Scales of block b and row r, read from the tile's scales.

template <class T>
T load_as(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
float half_at(const uint8_t* p, int64_t i) {
  return gemtp_f16_to_f32(load_as<uint16_t>(p + i * 2));
}

struct Half {
  static constexpr bool kMin = false, kGroups = false;
  static float scale(const uint8_t* s, int64_t b, int64_t r) { return half_at(s, b * kTile + r); }
};

struct Bf16 {
  static constexpr bool kMin = false, kGroups = false;
  static float scale(const uint8_t* s, int64_t b, int64_t r) {
    return gemtp_bf16_to_f32(load_as<uint16_t>(s + (b * kTile + r) * 2));
  }
};

struct HalfMin {
  static constexpr bool kMin = true, kGroups = false;
  static float scale(const uint8_t* s, int64_t b, int64_t r) {
    return half_at(s, 2 * b * kTile + r);
  }
  static float min(const uint8_t* s, int64_t b, int64_t r) {
    return half_at(s, (2 * b + 1) * kTile + r);
  }
};

struct KMin {
  static constexpr bool kMin = true, kGroups = false;
  static const uint8_t* super(const uint8_t* s, int64_t b) { return s + b / 8 * 320; }
  static float scale(const uint8_t* s, int64_t b, int64_t r) {
    return half_at(super(s, b), r) * static_cast<float>(super(s, b)[64 + b % 8 * 32 + r]);
  }
  static float min(const uint8_t* s, int64_t b, int64_t r) {
    return half_at(super(s, b), kTile + r) * static_cast<float>(super(s, b)[80 + b % 8 * 32 + r]);
  }
};

struct KSigned {
  static constexpr bool kMin = false, kGroups = false;
  static float scale(const uint8_t* s, int64_t b, int64_t r) {
    const uint8_t* super = s + b / 8 * 160;
    return half_at(super, r) * static_cast<float>(static_cast<int8_t>(super[32 + b % 8 * 16 + r]));
  }
};

template <bool kWithMin>
struct Groups {
  static constexpr bool kMin = kWithMin, kGroups = true;
  static constexpr int64_t kHead = kMin ? 128 : 64, kBlockScales = kMin ? 64 : 32;
  static const uint8_t* super(const uint8_t* s, int64_t b) {
    return s + b / 8 * (kHead + 8 * kBlockScales);
  }
  static float scale(const uint8_t* s, int64_t b, int64_t r) {
    return load_as<float>(super(s, b) + r * 4);
  }
  static float min(const uint8_t* s, int64_t b, int64_t r) {
    return load_as<float>(super(s, b) + 64 + r * 4);
  }
  static int32_t of_group(const uint8_t* s, int64_t b, int64_t r, int group) {
    return static_cast<int8_t>(super(s, b)[kHead + b % 8 * kBlockScales + group * kTile + r]);
  }
  static int32_t min_of_group(const uint8_t* s, int64_t b, int64_t r, int group) {
    return of_group(s + 32, b, r, group);
  }
};

template <class Quants, class Scales>
void matmul_quantized(const gemtp_matmul* args) {
  const gemtp_matmul& a = *args;
  const int64_t blocks = a.k / kBlock;
  for_each_tile(a, [&](const uint8_t* tile, int64_t first, int64_t n) {
    const uint8_t* scales = tile + blocks * Quants::kBytes;
    for (int64_t i = 0; i < a.m; ++i) {
      const int64_t panel = i / GEMTP_PANEL * GEMTP_PANEL;  // its first row
      const int64_t in_panel = a.m - panel < GEMTP_PANEL ? a.m - panel : int64_t{GEMTP_PANEL};
      for (int64_t r = 0; r < n; ++r) {
        float acc = 0.0f;
        for (int64_t b = 0; b < blocks; ++b) {
          const int64_t at = panel * blocks + b * in_panel + i - panel;
          const int8_t* q = a.xq.q + at * kBlock;
          const float dx = a.xq.d[at];
          int32_t half[2] = {};
          for (int k = 0; k < kBlock; ++k)
            half[k / 16] += Quants::quant(tile + b * Quants::kBytes, r, k, a.table) * q[k];
          int32_t dot = half[0] + half[1];
          if constexpr (Scales::kGroups)
            dot = Scales::of_group(scales, b, r, 0) * half[0] +
                  Scales::of_group(scales, b, r, 1) * half[1];
          acc = gemtp_fma(static_cast<float>(dot), Scales::scale(scales, b, r) * dx, acc);
          if constexpr (Scales::kMin && Scales::kGroups) {
            int32_t sums[2] = {};
            for (int k = 0; k < kBlock; ++k) sums[k / 16] += q[k];
            const int32_t min = Scales::min_of_group(scales, b, r, 0) * sums[0] +
                                Scales::min_of_group(scales, b, r, 1) * sums[1];
            acc = gemtp_fma(static_cast<float>(min), Scales::min(scales, b, r) * dx, acc);
          } else if constexpr (Scales::kMin) {
            acc = gemtp_fma(Scales::min(scales, b, r), a.xq.sum[at], acc);
          }
        }
        a.y[i * a.y_stride + first + r] = gemtp_flush(acc);
      }
    }
  });
}

float fold16(const float* lanes) {
  float s[16];
  std::memcpy(s, lanes, sizeof s);
  for (int half = 8; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) s[j] = s[j] + s[j + half];
  return s[0];
}

float inverse_rms(const float* x, int64_t n, float eps) {
  float lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % 16] = gemtp_fma(x[i], x[i], lanes[i % 16]);
  return 1.0f / gemtp_sqrt(fold16(lanes) / static_cast<float>(n) + eps);
}

void rms_norm(const float* x, const float* w, int64_t n, float eps, float* y) {
  const float inv = inverse_rms(x, n, eps);
  for (int64_t i = 0; i < n; ++i) y[i] = gemtp_flush(w ? (x[i] * inv) * w[i] : x[i] * inv);
}

void rms_norm_add(const float* x, const float* w, int64_t n, float eps, const float* r, float* y) {
  const float inv = inverse_rms(x, n, eps);
  for (int64_t i = 0; i < n; ++i) y[i] = gemtp_flush(r[i] + (x[i] * inv) * w[i]);
}

void gelu_mul(const float* gate, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = gemtp_flush(gemtp_gelu(gate[i]) * up[i]);
}

void softcap(const float* x, int64_t n, float cap, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = gemtp_flush(cap * gemtp_tanh(x[i] / cap));
}

void rope(float* x, const float* cos, const float* sin, int64_t n) {
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = gemtp_flush(gemtp_fma(-b, sin[i], a * cos[i]));
    x[i + half] = gemtp_flush(gemtp_fma(a, sin[i], b * cos[i]));
  }
}

void scale(const float* x, float s, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = gemtp_flush(x[i] * s);
}

void axpy(float s, const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = gemtp_flush(gemtp_fma(s, x[i], y[i]));
}

// Element `at` of an array of keys or values.
float kv_element(const gemtp_attention& a, const void* array, int64_t at) {
  return a.kv_f16 ? gemtp_f16_to_f32(static_cast<const uint16_t*>(array)[at])
                  : static_cast<const float*>(array)[at];
}

// Calls fn(from, to) for the positions from..to-1 of `span` in each chunk, in order.
template <class Fn>
void for_each_chunk(gemtp_span span, Fn fn) {
  for (int64_t chunk = span.first / kChunk * kChunk; chunk <= span.last; chunk += kChunk)
    fn(larger(chunk, span.first), smaller(chunk + kChunk, span.last + 1));
}

void attention_scores(const gemtp_attention* args, int64_t begin, int64_t end) {
  const gemtp_attention& a = *args;
  for (int64_t i = 0; i < a.n_q; ++i)
    for (int64_t t = a.base + begin * 16; t < a.base + end * 16; ++t) {
      if (t < a.spans[i].first || t > a.spans[i].last) continue;
      const int64_t slot = t % a.capacity;
      const int64_t key = slot / 16 * 16 * a.head_dim + slot % 16;
      float s = 0.0f;
      for (int64_t d = 0; d < a.head_dim; ++d)
        s = gemtp_fma(a.q[i][d], kv_element(a, a.keys, key + d * 16), s);
      a.p[i * a.p_stride + t - a.base] = s;
    }
}

void attention_weights(const gemtp_attention* args, int64_t begin, int64_t end) {
  const gemtp_attention& a = *args;
  for (int64_t i = begin; i < end; ++i) {
    float* p = a.p + i * a.p_stride;
    float max = -INFINITY;
    for (int64_t t = a.spans[i].first; t <= a.spans[i].last; ++t)
      max = p[t - a.base] > max ? p[t - a.base] : max;
    float sum = 0.0f;
    for_each_chunk(a.spans[i], [&](int64_t from, int64_t to) {
      float lanes[16] = {};
      for (int64_t t = from; t < to; ++t) {
        p[t - a.base] = gemtp_exp(p[t - a.base] - max);
        lanes[t % 16] = lanes[t % 16] + p[t - a.base];
      }
      sum = sum + fold16(lanes);
    });
    a.sums[i] = sum;
  }
}

void attention_values(const gemtp_attention* args, int64_t begin, int64_t end) {
  const gemtp_attention& a = *args;
  for (int64_t i = 0; i < a.n_q; ++i) {
    const float* p = a.p + i * a.p_stride;
    for (int64_t d = begin * 16; d < end * 16 && d < a.head_dim; ++d) {
      float total = 0.0f;
      for_each_chunk(a.spans[i], [&](int64_t from, int64_t to) {
        float acc = 0.0f;
        for (int64_t t = from; t < to; ++t) {
          const int64_t at = (d / 16 * a.capacity + t % a.capacity) * 16 + d % 16;
          acc = gemtp_fma(p[t - a.base], kv_element(a, a.values, at), acc);
        }
        total = total + acc;
      });
      a.out[i][d] = gemtp_flush(total / a.sums[i]);
    }
  }
}

void to_f16(const float* x, int64_t n, uint16_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = gemtp_f32_to_f16(x[i]);
}

}  // namespace

extern "C" const gemtp_kernels gemtp_kernels_scalar = {
    "scalar",
    quantize_q8,
    {
        matmul_float<float, identity>,
        matmul_float<uint16_t, from_f16>,
        matmul_float<uint16_t, from_bf16>,
        matmul_quantized<Bytes, Half>,
        matmul_quantized<Nibbles<8>, Half>,
        matmul_quantized<Nibbles<0>, HalfMin>,
        matmul_quantized<Fives<16>, Half>,
        matmul_quantized<Fives<0>, HalfMin>,
        matmul_quantized<Nibbles<0>, KMin>,
        matmul_quantized<Fives<0>, KMin>,
        matmul_quantized<Sixes, Groups<false>>,
        matmul_quantized<Table, Half>,
        matmul_quantized<Table, Bf16>,
        matmul_quantized<Table, KSigned>,
        matmul_quantized<Table, Groups<false>>,
        matmul_quantized<Table, Groups<true>>,
    },
    rms_norm,
    rms_norm_add,
    gelu_mul,
    softcap,
    rope,
    scale,
    axpy,
    attention_scores,
    attention_weights,
    attention_values,
    to_f16,
};
