// Inputs for the tests of the kernel tables: random values, matrices packed in the layout of
// kernels.h, quantized activations, K/V caches; and functions that call kernels with them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <new>
#include <vector>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar_math.h"
#include "base/float16.h"

#ifdef GEMTP_EMULATED_AVX_VNNI
extern "C" const gemtp_kernels gemtp_kernels_avxvnni_emulated;
#endif
#ifdef GEMTP_EMULATED_AVX512
extern "C" const gemtp_kernels gemtp_kernels_avx512_emulated;
extern "C" const gemtp_kernels gemtp_kernels_avx512vnni_emulated;
#endif

namespace gemtp::kernel_testing {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// Every table that can run here, including emulated ones, except the scalar one.
inline std::vector<const gemtp_kernels*> tables() {
  std::vector<const gemtp_kernels*> all = runnable_kernels();
  all.pop_back();
#ifdef GEMTP_EMULATED_AVX_VNNI
  all.push_back(&gemtp_kernels_avxvnni_emulated);
#endif
#ifdef GEMTP_EMULATED_AVX512
  all.push_back(&gemtp_kernels_avx512_emulated);
  all.push_back(&gemtp_kernels_avx512vnni_emulated);
#endif
  return all;
}

inline std::vector<const gemtp_kernels*> tables_and_scalar() {
  std::vector<const gemtp_kernels*> all = tables();
  all.push_back(&gemtp_kernels_scalar);
  return all;
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    uint64_t z = state_ ^ (state_ >> 29);
    z *= 0xbf58476d1ce4e5b9u;
    return z ^ (z >> 32);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  /// Returns a uniform value in [low, high).
  float real(float low, float high) {
    return low + (high - low) * (static_cast<float>(bits() >> 40) * 0x1p-24f);
  }

 private:
  uint64_t state_;
};

enum class Values { kPlain, kMixed, kSpecial, kTiny };

/// kPlain: like activations. kMixed: magnitudes from 2^-40 to 2^8, zeros of both signs.
/// kSpecial: also subnormals, infinities and huge values. kTiny: half of them around GEMTP_TINY,
/// around the smallest normal float, or anywhere below.
inline float draw(Random& random, Values values) {
  if (values == Values::kTiny) {
    constexpr int kAround[] = {-40, -41, -126, -127};
    const float x = random.real(-2.0f, 2.0f);
    const int64_t kind = random.below(16);
    if (kind < 4) return std::ldexp(x, kAround[kind]);
    return kind < 8 ? std::ldexp(x, -41 - static_cast<int>(random.below(109))) : x;
  }
  const int64_t kind =
      values == Values::kPlain ? 0 : random.below(values == Values::kMixed ? 8 : 12);
  const float x = random.real(-2.0f, 2.0f);
  switch (kind) {
    case 1:
      return x < 0 ? -0.0f : 0.0f;
    case 2:
    case 3:
      return std::ldexp(x, static_cast<int>(random.below(48)) - 40);
    case 8:
      return std::ldexp(x, -130 - static_cast<int>(random.below(19)));
    case 9:
      return x < 0 ? -kInf : kInf;
    case 10:
      return std::ldexp(x, 60 + static_cast<int>(random.below(67)));
    case 11:
      return x * 60.0f;
    default:
      return x;
  }
}

inline std::vector<float> draw(Random& random, int64_t n, Values values) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = draw(random, values);
  return x;
}

/// Whether the bits are equal, or both values are NaN: which NaN an operation returns is undefined.
inline bool same(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], 4) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  return true;
}

/// A buffer of exactly `n` values that starts on a 64-byte boundary.
template <class T>
class Aligned {
 public:
  explicit Aligned(int64_t n)
      : size_(n), data_(static_cast<T*>(::operator new(bytes(), std::align_val_t{64}))) {
    std::memset(data_, 0, bytes());
  }
  ~Aligned() { ::operator delete(data_, std::align_val_t{64}); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  T* get() { return data_; }
  const T* get() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }

 private:
  size_t bytes() const { return static_cast<size_t>(size_) * sizeof(T); }
  int64_t size_;
  T* data_;
};

// ---- weights in the tile layout of kernels.h ----------------------------------------------------

constexpr gemtp_format kFormats[] = {GEMTP_F32,   GEMTP_F16,    GEMTP_BF16, GEMTP_Q8_0,
                                     GEMTP_Q4_0,  GEMTP_Q4_1,   GEMTP_Q5_0, GEMTP_Q5_1,
                                     GEMTP_Q4_K,  GEMTP_Q5_K,   GEMTP_Q6_K, GEMTP_IQ4_NL,
                                     GEMTP_MXFP4, GEMTP_IQ4_XS, GEMTP_T4_G, GEMTP_T4_GM};
static_assert(std::size(kFormats) == GEMTP_FORMATS);

inline bool quantized(gemtp_format f) { return f >= GEMTP_Q8_0; }

/// The parameters of a quantized format.
struct Layout {
  int64_t quant_bytes;  // bytes of a block of 16 rows
  int low, high;        // range of the quants, inclusive
  int64_t scale_bytes;  // bytes for 256 k of 16 rows
  int64_t k;            // row width is a multiple of this
};
inline Layout layout(gemtp_format f) {
  switch (f) {
    case GEMTP_Q8_0:
      return {512, -128, 127, 256, 32};
    case GEMTP_Q4_0:
      return {256, -8, 7, 256, 32};
    case GEMTP_Q4_1:
      return {256, 0, 15, 512, 32};
    case GEMTP_Q5_0:
      return {320, -16, 15, 256, 32};
    case GEMTP_Q5_1:
      return {320, 0, 31, 512, 32};
    case GEMTP_Q4_K:
      return {256, 0, 15, 320, 256};
    case GEMTP_Q5_K:
      return {320, 0, 31, 320, 256};
    case GEMTP_Q6_K:
      return {384, -32, 31, 320, 256};
    case GEMTP_IQ4_NL:
    case GEMTP_MXFP4:
      return {256, 0, 15, 256, 32};
    case GEMTP_IQ4_XS:
      return {256, 0, 15, 160, 256};
    case GEMTP_T4_G:
      return {256, 0, 15, 320, 256};
    case GEMTP_T4_GM:
      return {256, 0, 15, 640, 256};
    default:
      return {};
  }
}

inline int64_t tile_size(gemtp_format f, int64_t k) {
  const Layout l = layout(f);
  const int64_t bytes = f == GEMTP_F32 ? k * 64
                        : quantized(f) ? k / 32 * l.quant_bytes + k / 32 * l.scale_bytes / 8
                                       : k * 32;
  return (bytes + 63) / 64 * 64;
}

/// A random packed matrix. `value` are its elements in double, `magnitude` are bounds on their
/// parts: |scale * quant| + |minimum|.
struct Matrix {
  gemtp_format format;
  int64_t rows, k, tile_bytes;
  Aligned<uint8_t> data;
  std::vector<double> value, magnitude;  // [rows][k]
  int8_t table[16];

  Matrix(Random& random, gemtp_format f, int64_t n_rows, int64_t n_k, Values values)
      : format(f),
        rows(n_rows),
        k(n_k),
        tile_bytes(tile_size(f, n_k)),
        data((n_rows + 15) / 16 * tile_bytes),
        value(static_cast<size_t>(n_rows * n_k)),
        magnitude(value.size()) {
    // Values of groups stay within 62, so that scaled sums of a block stay below 2^24.
    const int64_t most = f == GEMTP_T4_G || f == GEMTP_T4_GM ? 62 : 127;
    for (int8_t& v : table) v = static_cast<int8_t>(random.below(2 * most + 1) - most);
    table[3] = static_cast<int8_t>(-most);
    table[12] = static_cast<int8_t>(most);
    for (int64_t r = 0; r < rows; ++r) {
      uint8_t* tile = data.get() + r / 16 * tile_bytes;
      if (quantized(f))
        for (int64_t b = 0; b < k / 32; ++b) fill_block(random, tile, r, b);
      else
        for (int64_t i = 0; i < k; ++i) {
          const int64_t at = i * 16 + r % 16;
          set(r, i, put(tile, at, draw(random, values)), 0);
        }
    }
  }

  void set(int64_t r, int64_t i, double product, double min) {
    value[static_cast<size_t>(r * k + i)] = product + min;
    magnitude[static_cast<size_t>(r * k + i)] = std::fabs(product) + std::fabs(min);
  }

  float put(uint8_t* tile, int64_t at, float w) const {
    if (format == GEMTP_F32) {
      std::memcpy(tile + at * 4, &w, 4);
      return w;
    }
    const uint16_t half =
        format == GEMTP_F16 ? gemtp_f32_to_f16(w) : static_cast<uint16_t>(gemtp_f32_bits(w) >> 16);
    std::memcpy(tile + at * 2, &half, 2);
    return format == GEMTP_F16 ? gemtp_f16_to_f32(half) : gemtp_bf16_to_f32(half);
  }

  // Writes the code of element i of a block to its place.
  void put_code(uint8_t* block, int64_t lane, int64_t i, int q) const {
    const Layout l = layout(format);
    if (format == GEMTP_Q8_0) {
      block[(i / 4 * 16 + lane) * 4 + i % 4] = static_cast<uint8_t>(q);
      return;
    }
    const int code = q - l.low;
    const auto set_bits = [](uint8_t& byte, int bits) { byte = static_cast<uint8_t>(byte | bits); };
    set_bits(block[(i % 16 / 4 * 16 + lane) * 4 + i % 4], (code & 15) << (i < 16 ? 0 : 4));
    if (l.quant_bytes == 320) set_bits(block[256 + lane * 4 + i % 4], (code >> 4) << (i / 4));
    if (l.quant_bytes == 384)
      set_bits(block[256 + i / 16 * 64 + lane * 4 + i % 4], (code >> 4) << (i % 16 / 4 * 2));
  }

  // Writes an f16 of one row into an array of 16 and returns its value.
  static double put_half(Random& random, uint8_t* array, int64_t lane) {
    float d = random.real(-0.02f, 0.02f);
    if (random.below(16) == 0) d = random.below(2) ? 0.0f : 3e-7f;  // a subnormal f16
    const uint16_t half = gemtp_f32_to_f16(d);
    std::memcpy(array + lane * 2, &half, 2);
    return static_cast<double>(gemtp_f16_to_f32(half));
  }
  static double get_half(const uint8_t* array, int64_t lane) {
    uint16_t half;
    std::memcpy(&half, array + lane * 2, 2);
    return static_cast<double>(gemtp_f16_to_f32(half));
  }
  // Like put_half, but the first block of a super-block determines the value for all of its blocks.
  static double super_half(Random& random, int64_t b, uint8_t* array, int64_t lane) {
    return b % 8 == 0 ? put_half(random, array, lane) : get_half(array, lane);
  }
  static double super_float(Random& random, int64_t b, uint8_t* array, int64_t lane) {
    float d = random.real(-2e-4f, 2e-4f);
    if (b % 8)
      std::memcpy(&d, array + lane * 4, 4);
    else
      std::memcpy(array + lane * 4, &d, 4);
    return static_cast<double>(d);
  }
  static int put_byte(uint8_t* array, int64_t lane, int64_t v) {
    array[lane] = static_cast<uint8_t>(v);
    return static_cast<int>(v);
  }

  struct Scale {
    double scale[2], min[2];  // for both groups of a block
  };

  Scale fill_scales(Random& random, uint8_t* s, int64_t lane, int64_t b) const {
    const auto same = [](double scale, double min) { return Scale{{scale, scale}, {min, min}}; };
    const int64_t in = b % 8;
    switch (format) {
      case GEMTP_MXFP4: {
        const uint16_t bf16 = static_cast<uint16_t>((87 + random.below(43)) << 7);  // 2^-40..
        std::memcpy(s + (b * 16 + lane) * 2, &bf16, 2);
        return same(static_cast<double>(gemtp_bf16_to_f32(bf16)), 0);
      }
      case GEMTP_Q4_1:
      case GEMTP_Q5_1: {
        const double d = put_half(random, s + b * 64, lane);
        return same(d, put_half(random, s + b * 64 + 32, lane));
      }
      case GEMTP_Q4_K:
      case GEMTP_Q5_K: {
        s += b / 8 * 320;
        const double d = super_half(random, b, s, lane), m = super_half(random, b, s + 32, lane);
        const int scale = put_byte(s + 64 + in * 32, lane, random.below(256));
        return same(d * scale, m * put_byte(s + 80 + in * 32, lane, random.below(256)));
      }
      case GEMTP_IQ4_XS: {
        s += b / 8 * 160;
        const double d = super_half(random, b, s, lane);
        return same(d * put_byte(s + 32 + in * 16, lane, random.below(64) - 32), 0);
      }
      case GEMTP_Q6_K:
      case GEMTP_T4_G:
      case GEMTP_T4_GM: {
        const int64_t head = format == GEMTP_T4_GM ? 128 : 64, step = head / 2;
        s += b / 8 * (head + 8 * step);
        const double d = super_float(random, b, s, lane);
        const int64_t most = format == GEMTP_Q6_K ? 128 : 32;
        Scale both{};
        for (int g = 0; g < 2; ++g) {
          const int64_t any = random.below(8) ? random.below(2 * most) - most : -most;
          both.scale[g] = d * put_byte(s + head + in * step + g * 16, lane, any);
        }
        if (format != GEMTP_T4_GM) return both;
        const double m = super_float(random, b, s + 64, lane);
        for (int g = 0; g < 2; ++g)
          both.min[g] = m * put_byte(s + head + in * step + 32 + g * 16, lane, random.below(128));
        return both;
      }
      default:
        return same(put_half(random, s + b * 32, lane), 0);
    }
  }

  void fill_block(Random& random, uint8_t* tile, int64_t r, int64_t b) {
    const Layout l = layout(format);
    const int64_t lane = r % 16;
    const bool from_table = format >= GEMTP_IQ4_NL;
    const Scale s = fill_scales(random, tile + k / 32 * l.quant_bytes, lane, b);
    // Some blocks are at the end of the range, where an int16 sum is largest.
    const int64_t extreme = random.below(8);
    for (int64_t i = 0; i < 32; ++i) {
      int q = l.low + static_cast<int>(random.below(l.high - l.low + 1));
      if (extreme < 2) q = from_table ? (extreme ? 12 : 3) : (extreme ? l.high : l.low);
      put_code(tile + b * l.quant_bytes, lane, i, q);
      const int w = from_table ? table[q] : q;
      set(r, b * 32 + i, s.scale[i / 16] * w, s.min[i / 16]);
    }
  }
};

/// Activations: floats and their quantized form (by the scalar kernel, plus blocks at the limits).
struct Activations {
  int64_t m, k, stride;
  std::vector<float> x;
  std::vector<int8_t> q;
  std::vector<float> d, sum;
  std::vector<int32_t> bias, pairs;

  Activations(Random& random, int64_t rows, int64_t cols, Values values)
      : m(rows), k(cols), stride(cols + random.below(3)), x(draw(random, rows * stride, values)) {
    if (k % 32) return;
    for (int64_t block = 0; block < m * k / 32; ++block) {
      if (random.below(4)) continue;
      const float limit = random.below(2) ? 1.5f : -1.5f;  // all quants 127 or -127
      const int64_t at = block / (k / 32) * stride + block % (k / 32) * 32;
      for (int64_t j = 0; j < 32; ++j) x[static_cast<size_t>(at + j)] = limit;
    }
    quantize();
  }

  /// Returns only the first n rows.
  Activations first(int64_t n) const {
    Activations a = *this;
    a.m = n;
    a.quantize();
    return a;
  }

  void quantize() {
    q.resize(static_cast<size_t>(m * k));
    d.resize(static_cast<size_t>(m * k / 32));
    sum.resize(d.size());
    bias.resize(d.size());
    pairs.resize(2 * d.size());
    for (int64_t i = 0; i < m; ++i)
      gemtp_kernels_scalar.quantize_q8(&x[static_cast<size_t>(i * stride)], k, panel_rows(i),
                                       gemtp_q8_next(quants(), block(i, 0)));
  }
  gemtp_q8_rows quants() { return {q.data(), d.data(), bias.data(), pairs.data(), sum.data()}; }

  int64_t panel_rows(int64_t row) const { return std::min<int64_t>(16, m - row / 16 * 16); }
  /// Index of block b of a row among all blocks: panels of 16 rows, with blocks outermost.
  int64_t block(int64_t row, int64_t b) const {
    return row / 16 * 16 * (k / 32) + b * panel_rows(row) + row % 16;
  }
};

inline std::vector<float> multiply(const gemtp_kernels& t, const Matrix& w, Activations x,
                                   int64_t tile_begin, int64_t tile_end, int64_t y_stride) {
  std::vector<float> y(static_cast<size_t>(x.m * y_stride), -7.25f);
  gemtp_matmul a{};
  a.weights = w.data.get() + tile_begin * w.tile_bytes;
  a.tile_bytes = w.tile_bytes;
  a.k = w.k;
  a.tiles = tile_end - tile_begin;
  a.tiles_behind = (w.rows + 15) / 16 - tile_end;
  a.rows = std::min(16 * tile_end, w.rows) - 16 * tile_begin;
  a.m = x.m;
  a.x = x.x.data();
  a.x_stride = x.stride;
  a.xq = x.quants();
  a.table = w.table;
  a.y = y.data() + 16 * tile_begin;
  a.y_stride = y_stride;
  t.matmul[w.format](&a);
  return y;
}

// ---- attention ----------------------------------------------------------------------------------

struct Cache {
  bool f16;
  int64_t head_dim, capacity;
  Aligned<uint8_t> keys, values;

  /// Slots of positions first..last hold ordinary numbers, all others NaN patterns or large
  /// numbers.
  Cache(Random& random, bool half, int64_t d, int64_t slots, int64_t first, int64_t last,
        Values kind = Values::kMixed)
      : f16(half),
        head_dim(d),
        capacity(slots),
        keys(slots * d * 4),
        values(slots * columns() * 16 * 4) {
    const int stale = random.below(2) ? 0xff : 0x55;
    std::memset(keys.get(), stale, static_cast<size_t>(slots * d * 4));
    std::memset(values.get(), stale, static_cast<size_t>(slots * columns() * 16 * 4));
    for (int64_t t = first; t <= last; ++t)
      for (int64_t i = 0; i < d; ++i) {
        const int64_t slot = t % slots;
        put(keys, (slot / 16 * d + i) * 16 + slot % 16, draw(random, kind));
        put(values, (i / 16 * slots + slot) * 16 + i % 16, draw(random, kind));
      }
  }

  int64_t columns() const { return (head_dim + 15) / 16; }

  void put(Aligned<uint8_t>& to, int64_t at, float v) {
    const uint16_t half = gemtp_f32_to_f16(v);
    if (f16)
      std::memcpy(to.get() + at * 2, &half, 2);
    else
      std::memcpy(to.get() + at * 4, &v, 4);
  }
};

/// Returns the results of all queries, each with its own span, followed by a guard value. split:
/// run the steps in parts of this many blocks, queries and columns; 0: in one part.
inline std::vector<float> attend(const gemtp_kernels& t, const Cache& cache,
                                 const std::vector<float>& q, const std::vector<gemtp_span>& spans,
                                 int64_t split = 0) {
  const auto n_q = static_cast<int64_t>(spans.size());
  const int64_t d = cache.head_dim;
  std::vector<float> out(static_cast<size_t>(n_q * d + 3), -7.25f);
  std::vector<const float*> qs;
  std::vector<float*> outs;
  int64_t first = spans[0].first, last = spans[0].last;
  for (int64_t h = 0; h < n_q; ++h) {
    qs.push_back(q.data() + h * d);
    outs.push_back(out.data() + h * d);
    first = std::min(first, spans[static_cast<size_t>(h)].first);
    last = std::max(last, spans[static_cast<size_t>(h)].last);
  }
  const int64_t blocks = last / 16 - first / 16 + 1, stride = 16 * (blocks + n_q % 3);
  Aligned<float> weights(n_q * stride);
  std::memset(weights.get(), 0xff, static_cast<size_t>(n_q * stride) * 4);
  std::vector<float> sums(spans.size());
  gemtp_attention a{};
  a.keys = cache.keys.get();
  a.values = cache.values.get();
  a.kv_f16 = cache.f16;
  a.head_dim = d;
  a.capacity = cache.capacity;
  a.n_q = n_q;
  a.q = qs.data();
  a.out = outs.data();
  a.spans = spans.data();
  a.p = weights.get();
  a.p_stride = stride;
  a.base = first / 16 * 16;
  a.sums = sums.data();
  const auto run = [&](auto step, int64_t n) {
    const int64_t size = split ? split : n;
    for (int64_t at = 0; at < n; at += size) step(&a, at, std::min(at + size, n));
  };
  run(t.attention_scores, blocks);
  run(t.attention_weights, n_q);
  run(t.attention_values, cache.columns());
  return out;
}

}  // namespace gemtp::kernel_testing
