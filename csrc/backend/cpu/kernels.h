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
 *  - Chunks: a sum over k in a float matmul, or over positions in attention, is cut at the
 *    multiples of GEMTP_CHUNK, counted from k = 0 and from position 0, wherever a span begins. Each
 *    chunk is summed from +0 and its sum added, in order, to a total that also begins at +0. (A
 *    total is therefore never -0, and adding the +0 of a chunk of which a span has nothing changes
 *    no bit: it may be done or left out, and chunks may be summed side by side.)
 *  - No sum meets a number between 0 and 2^-126, where some processors round to zero and others do
 *    not. Every float that a kernel gives as a result is flushed: flush(x) = x, or +0 where |x| <
 *    GEMTP_TINY = 2^-40; the formulas below leave that out. So are float weights and block scales
 *    when they are packed. Products of two flushed numbers are multiples of 2^-126, and so are all
 *    sums of them. docs/architecture.md goes through every operation.
 *
 * Weight layout: a matrix [rows, k] is cut into tiles of 16 output rows (the last one padded with
 * zero rows); tiles are contiguous, `tile_bytes` apart, and begin on 64-byte boundaries. Inside a
 * tile of f32, f16 or bf16: [k][16 rows] elements. Inside a tile of a quantized format: the quants
 * of all blocks of 32 k, then their scales. What a format is made of:
 *
 * Quants of a block, in groups of 4 consecutive k: group g holds k = 4g .. 4g+3.
 *  - bytes: [8 groups][16 rows][4 k] int8.
 *  - nibbles: [4 groups][16 rows][4] bytes; the byte at group g, position i holds element 4g + i in
 *    its low nibble and element 16 + 4g + i in its high nibble.
 *  - fives: nibbles, then [16 rows][4] bytes: bit g of byte i is the fifth bit of element 4g + i.
 *  - sixes: nibbles, then [2 halves][16 rows][4] bytes: bits 2g, 2g + 1 of byte i of half h are the
 *    upper two bits of element 16h + 4g + i.
 *  - table: nibbles that stand for the values of gemtp_matmul.table.
 * Scales:
 *  - half, bf16: [k/32][16 rows] numbers of 16 bits.
 *  - half + min: [k/32][scale, minimum][16 rows] f16.
 *  - K: for each 256 k: f16 d[16 rows], f16 m[16 rows], then [8 blocks][scale, minimum][16 rows]
 *    bytes without sign. A block's scale is d * byte, its minimum m * byte.
 *  - K, signed: for each 256 k: f16 d[16 rows], then [8 blocks][16 rows] int8; the scale is d *
 *    byte.
 *  - groups: for each 256 k: f32 d[16 rows], then [8 blocks][2 groups of 16 k][16 rows] int8.
 *  - groups + min: for each 256 k: f32 d[16 rows], f32 m[16 rows], then [8 blocks][scale,
 *    minimum][2 groups of 16 k][16 rows] int8, minima >= 0.
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GEMTP_TILE = 16, GEMTP_BLOCK = 32, GEMTP_PANEL = 16, GEMTP_CHUNK = 512 };

#define GEMTP_TINY 0x1p-40f /* what is smaller counts as zero */

/* Packed formats: what elements are (w) and their scales. The names are those of the file types
 * that they hold without any change; `pack.h` has the others. */
typedef enum {
  GEMTP_F32,
  GEMTP_F16,
  GEMTP_BF16,
  GEMTP_Q8_0,   /* bytes, half */
  GEMTP_Q4_0,   /* nibbles: w = nibble - 8, half */
  GEMTP_Q4_1,   /* nibbles, half + min */
  GEMTP_Q5_0,   /* fives: w = five - 16, half */
  GEMTP_Q5_1,   /* fives, half + min */
  GEMTP_Q4_K,   /* nibbles, K */
  GEMTP_Q5_K,   /* fives, K */
  GEMTP_Q6_K,   /* sixes: w = six - 32, groups */
  GEMTP_IQ4_NL, /* table, half */
  GEMTP_MXFP4,  /* table, bf16 */
  GEMTP_IQ4_XS, /* table, K signed */
  GEMTP_T4_G,   /* table, groups */
  GEMTP_T4_GM,  /* table, groups + min */
  GEMTP_FORMATS
} gemtp_format;

/* Activation rows for the quantized matmuls, m rows of k elements, k % 32 == 0, in panels of 16
 * rows. Panel p holds the n = min(16, m - 16p) rows from 16p on and begins at q + 16p * k,
 * d + 16p * k/32 and bias + 16p * k/32. Inside a panel blocks are outermost, so that the kernels
 * walk it from end to end. */
typedef struct {
  int8_t* q; /* [k/32][n][32] quants in [-127, 127] */
  float* d;  /* [k/32][n] scales */
  /* [k/32][n] -8 * (sum of the quants of even pairs), an int16 in the lower half, and of odd pairs:
   * what the 8 in Q4_0's nibbles adds, taken back where the products of pairs are summed as int16.
   * Pair i of a block is its quants 2i and 2i + 1. */
  int32_t* bias;
  /* [k/32][n][2] the same sums, without the factor, of quants 0..15 and of quants 16..31. */
  int32_t* pairs;
  float* sum; /* [k/32][n] d * (sum of the block's quants): what a minimum of 1 adds */
} gemtp_q8_rows;

typedef struct {
  const uint8_t* weights; /* first tile to compute, 64-byte aligned */
  int64_t tile_bytes;
  int64_t k;
  int64_t tiles;        /* tiles to compute */
  int64_t tiles_behind; /* tiles that follow in memory, whose turn may come next: prefetched */
  int64_t rows;         /* output rows, <= 16 * tiles (stores beyond are skipped) */
  int64_t m;            /* activation rows, any number >= 1 */
  const float* x;       /* float matmuls: [m] flushed rows of k, x_stride floats apart */
  int64_t x_stride;
  gemtp_q8_rows xq;    /* quantized matmuls */
  const int8_t* table; /* [16] values of a table format's nibbles */
  float* y;            /* [m] rows, y_stride floats apart: y[i][r] */
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
   * q = round_half_even(max(x * id, -127)). A block with amax < GEMTP_TINY is all zero with d = 0.
   * amax passes over NaNs and the max takes a NaN to -127, so every input has a defined result; an
   * infinity makes d infinite, and the block's products are not finite. `to` points to the row's
   * place in the first block of a panel of n rows. */
  void (*quantize_q8)(const float* x, int64_t k, int64_t n, gemtp_q8_rows to);

  /* The product with a matrix of each gemtp_format. Floats: y[i][r] = sum over k, in chunks, of
   * fma(w[r][k], x[i][k], acc) in order. Quantized: over blocks b in order, from 0,
   *   acc = fma((float)dot, dw * dx, acc)
   *   acc = fma(min, sum, acc)                       where the scales have minima
   * dot is the exact int32 product sum of the block, dw the weight's and dx the activation's
   * scale, sum the activation's. In formats with groups, dot is the exact int32
   * s0 * (dot of k 0..15) + s1 * (dot of k 16..31) with the groups' scales and dw = d; it and all
   * that it is made of stay below 2^24 in size, so that floats hold it, too. Their minima: acc =
   * fma((float)(m0 * (sum of quants 0..15) + m1 * (sum of 16..31)), m * dx, acc). */
  void (*matmul[GEMTP_FORMATS])(const gemtp_matmul* args);

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
  /* Weights of queries [begin, end): mx = max over first..last; p_t = exp(s_t - mx), which is 0
   * where it would be tiny; sum = sum of p_t in chunks, each the lane16 sum with lane t % 16. */
  void (*attention_weights)(const gemtp_attention* args, int64_t begin, int64_t end);
  /* Head dims in the columns [begin, end) of 16 dims: out[d] = (sum over t = first..last, in
   * chunks, of fma(p_t, v_t[d], acc) in order) / sum. */
  void (*attention_values)(const gemtp_attention* args, int64_t begin, int64_t end);

  /* f32 to f16, round to nearest even; subnormal numbers of f16 stay what they are. */
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
