/* The table of CPU kernels. One table per instruction set, each in a file of its own that is
 * compiled with that set's flags; scalar.cc is the definition of what every other table must
 * compute, bit for bit. Plain C types only, so that no inline C++ compiled with wide flags can leak
 * to other callers.
 *
 * Numerics (the contract of the project):
 *  - SIMD lanes are output rows (matmul), keys (q.k), head dims (p.v) or elements; there is no
 *    horizontal float sum except where lane16 below is named.
 *  - A fused multiply-add happens exactly where fma() is written; everything else rounds once per
 *    operation (files are compiled with -ffp-contract=off).
 *  - lane16: sums over a row use 16 accumulators, element i goes to accumulator i % 16 in order of
 *    i, then they fold 16 -> 8 -> 4 -> 2 -> 1 by adding accumulator j + half to accumulator j.
 *
 * Weight layout: a matrix [rows, k] is cut into tiles of 16 output rows (the last one padded with
 * zero rows); tiles are contiguous, `tile_bytes` apart. Inside a tile:
 *  - f32/f16/bf16: [k][16 rows] elements.
 *  - q8_0: [k/32 blocks][8 groups][16 rows][4 k] int8, then [k/32][16 rows] f16 scales. 4 k are
 *    consecutive; group g of a block holds k = 4g .. 4g+3.
 *  - q4_0: [k/32 blocks][4 groups][16 rows][4] bytes, then [k/32][16 rows] f16 scales. The byte at
 *    group g, position i holds element 4g + i in its low nibble and element 16 + 4g + i in its high
 *    nibble, both plus 8.
 * Tiles begin on 64-byte boundaries.
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GEMTP_TILE = 16, GEMTP_BLOCK = 32, GEMTP_PANEL = 16 };

/* Activation rows for the quantized matmuls, m rows of k elements, k % 32 == 0, in panels of 16
 * rows. Panel p holds the n = min(16, m - 16p) rows from 16p on and begins at q + 16p * k,
 * d + 16p * k/32 and bias + 16p * k/32. Inside a panel blocks are outermost, so that the kernels
 * walk it from end to end. */
typedef struct {
  const int8_t* q; /* [k/32][n][32] quants in [-127, 127] */
  const float* d;  /* [k/32][n] scales */
  /* [k/32][n] -4 * (sum of the block's quants), an int16 in the lower half and again in the upper
   * one: what the 8 in Q4_0's nibbles adds, taken back where pairs of int16 are summed. */
  const int32_t* bias;
} gemtp_q8_rows;

typedef struct {
  const uint8_t* weights; /* first tile to compute, 64-byte aligned */
  int64_t tile_bytes;
  int64_t k;
  int64_t tiles;        /* tiles to compute */
  int64_t tiles_behind; /* tiles that follow in memory, whose turn may come next: prefetched */
  int64_t rows;         /* output rows, <= 16 * tiles (stores beyond are skipped) */
  int64_t m;            /* activation rows, any number >= 1 */
  const float* x;       /* float matmuls: [m] rows of k, x_stride floats apart */
  int64_t x_stride;
  gemtp_q8_rows xq; /* quantized matmuls */
  float* y;         /* [m] rows, y_stride floats apart: y[i][r] */
  int64_t y_stride;
} gemtp_matmul;

/* Positions that a query attends to, both inclusive, last >= first. */
typedef struct {
  int64_t first, last;
} gemtp_span;

/* Attention of n_q queries over one K/V head: of all heads and rows that share it, so that K and V
 * are read once for all of them. Position t lives in slot t % capacity, capacity % 16 == 0.
 * Elements are f16 (kv_f16 = 1) or f32.
 * Keys are in blocks of 16 slots, [capacity/16][head_dim][16 keys]; values in columns of 16 head
 * dims, [ceil(head_dim/16)][capacity][16 dims], where dims past the last may hold anything. */
typedef struct {
  const void* keys;
  const void* values;
  int kv_f16;
  int64_t head_dim;
  int64_t capacity;
  int64_t n_q;
  const float* const* q;   /* [n_q] vectors of head_dim floats */
  float* const* out;       /* [n_q] results of head_dim floats */
  const gemtp_span* spans; /* [n_q] */
  /* Scores, then weights: of query i and position t in p[i * p_stride + t - base]. base % 16 == 0,
   * base <= every first; p is 64-byte aligned, p_stride % 16 == 0 and beyond every last - base. */
  float* p;
  int64_t p_stride;
  int64_t base;
  float* sums; /* [n_q] sum of a query's weights */
} gemtp_attention;

typedef struct gemtp_kernels {
  const char* name; /* "scalar", "avx2", "avxvnni", "avx512", "avx512vnni", ... */

  /* Quantizes one row in blocks of 32: amax = max |x|; d = amax / 127; id = 1 / d;
   * q = round_half_even(max(x * id, -127)). A block with amax < 1e-30 is all zero with d = 0.
   * amax passes over NaNs and the max takes a NaN to -127, so every input has a defined result; an
   * infinity makes d infinite, and the block's products are not finite. q, d and bias point to the
   * row's place in the first block of a panel of n rows. */
  void (*quantize_q8)(const float* x, int64_t k, int64_t n, int8_t* q, float* d, int32_t* bias);

  /* y[i][r] = sum over k in order of fma(w[r][k], x[i][k], acc), starting from 0. */
  void (*matmul_f32)(const gemtp_matmul* args);
  void (*matmul_f16)(const gemtp_matmul* args);
  void (*matmul_bf16)(const gemtp_matmul* args);
  /* y[i][r] = over blocks b in order: acc = fma((float)dot, dw * dx, acc), where dot is the exact
   * int32 product sum of the block (q4_0: of nibble - 8), dw the weight's and dx the activation's
   * scale. */
  void (*matmul_q8_0)(const gemtp_matmul* args);
  void (*matmul_q4_0)(const gemtp_matmul* args);

  /* y = (x * inv) * w, inv = 1 / sqrt(ss / n + eps), ss the lane16 sum of fma(x, x, acc).
   * w == NULL: y = x * inv. y may be x. */
  void (*rms_norm)(const float* x, const float* w, int64_t n, float eps, float* y);
  /* y[i] = r[i] + (x * inv) * w : a normed branch joins the residual r. y may be r. */
  void (*rms_norm_add)(const float* x, const float* w, int64_t n, float eps, const float* r,
                       float* y);
  /* y = gelu(gate) * up, element by element; gelu(x) = x / (1 + exp(-2u)),
   * u = sqrt(2/pi) * fma(0.044715 * x * x, x, x) (the tanh form of gelu). y may be gate or up. */
  void (*gelu_mul)(const float* gate, const float* up, int64_t n, float* y);
  /* y = cap * tanh(x / cap). y may be x. */
  void (*softcap)(const float* x, int64_t n, float cap, float* y);
  /* Rotates pairs (i, i + n/2): y_i = x_i * cos_i - x_j * sin_i, y_j = x_j * cos_i + x_i * sin_i
   * with the second product of each fused: y_i = fma(-x_j, sin_i, x_i * cos_i) and y_j = fma(x_i,
   * sin_i, x_j * cos_i). In place. cos and sin have n/2 entries. */
  void (*rope)(float* x, const float* cos, const float* sin, int64_t n);
  /* y = x * s, element by element. */
  void (*scale)(const float* x, float s, int64_t n, float* y);
  /* y = fma(s, x, y). */
  void (*axpy)(float s, const float* x, int64_t n, float* y);

  /* The three steps of attention, each to be cut into parts that may run side by side.
   * Scores of the 16-position blocks [begin, end) counted from base: s_t = dot(q, key_t), d in
   * order by fma from 0. Of a block's positions those outside a query's span get any value. */
  void (*attention_scores)(const gemtp_attention* args, int64_t begin, int64_t end);
  /* Weights of queries [begin, end): mx = max over first..last; p_t = exp(s_t - mx); sum = lane16
   * sum of p_t with lane t % 16 (absolute position). */
  void (*attention_weights)(const gemtp_attention* args, int64_t begin, int64_t end);
  /* Head dims in the columns [begin, end) of 16 dims: out[d] = (over t = first..last in order:
   * acc = fma(p_t, v_t[d], acc), from 0) / sum. */
  void (*attention_values)(const gemtp_attention* args, int64_t begin, int64_t end);

  /* f32 <-> f16, round to nearest even. */
  void (*to_f16)(const float* x, int64_t n, uint16_t* y);
} gemtp_kernels;

/* The elementary functions are defined in scalar_math.h. */

extern const gemtp_kernels gemtp_kernels_scalar;
/* The others exist where the compiler targets the architecture; see dispatch.cc. */
extern const gemtp_kernels gemtp_kernels_avx2;
extern const gemtp_kernels gemtp_kernels_avxvnni;
extern const gemtp_kernels gemtp_kernels_avx512;
extern const gemtp_kernels gemtp_kernels_avx512vnni;
extern const gemtp_kernels gemtp_kernels_neon;
extern const gemtp_kernels gemtp_kernels_neon_dotprod;
extern const gemtp_kernels gemtp_kernels_neon_i8mm;

#ifdef __cplusplus
}
#endif
