// What kernels are told: one struct for each, the same bytes on every device and on the host, which
// includes this behind address.h. Addresses may be null where the comment says "or none".
#pragma once

namespace gemtp {
namespace gpu {

// ---- quantized activations ----------------------------------------------------------------------

/// What a block of 32 quants begins with. The quants behind it take the bytes of the target's
/// Quant, 1 (CUDA) or 4 (Metal); groups of 4 lie in the order 0, 4, 1, 5, 2, 6, 3, 7, so that those
/// which share a word of nibbles are neighbours.
struct alignas(16) BlockHead {
  float d;         // scale
  int32_t total;   // sum of the quants
  float sum;       // d * total: what a minimum of 1 adds
  int32_t halves;  // sums of quants 0..15 (lower 16 bits) and 16..31
};

/// Blocks, [rows][k / 32].
using QuantizedRows = Global<uint8_t>;

// ---- products with matrices ---------------------------------------------------------------------

/// A matrix in the tiles of backend/cpu/kernels.h.
struct PackedMatrix {
  Global<const uint8_t> tiles;
  int64_t tile_bytes;
  int32_t rows;
  float scale;   // of every product
  Words4 table;  // of a table format: the values of its nibbles, a byte each
};

/// A matrix of a set, whose matrices differ in nothing else.
struct SetMember {
  Global<const uint8_t> tiles;
  float scale;
};

/// Rows that are multiplied with one matrix of a set: an expert's or a cluster's.
struct MatrixRows {
  int32_t matrix;  // of the set
  int32_t first;   // row of y, and of x where x_step is 1
  int32_t count;   // 0: none
};

enum { kManyRows = 32 };  // of a panel of matmul_F_many

/// Grid: (strips of 32 rows of all matrices, or of one times the entries of the list; panels of the
/// kernel's rows). Behind the last row of x there must be room for a whole panel, holding zeros or
/// earlier rows.
struct MatmulArguments {
  QuantizedRows x;              // of quantized formats
  Global<const float> x_float;  // of float formats: [m] rows of k
  int32_t k, m;
  // Up to 4 products with the same rows; or, of a gated kernel, those with gate and up, of one
  // shape.
  PackedMatrix matrix[4];
  Global<float> y[4];  // [m] rows of matrix[i].rows; of a gated kernel y[0], or none
  int32_t strips;      // of all matrices
  // Of a gated kernel whose other factor is known: [m] rows, factor_stride floats apart.
  Global<const float> factor;
  int64_t factor_stride;
  QuantizedRows quantized;  // of a gated kernel: its results, or none
  // A list, or none. With a list, matrix[0] (and [1]) is any matrix of its set.
  Global<const MatrixRows> list;
  Global<const SetMember> set[2];
  int32_t x_step;  // 0: all of the list multiply row 0 of x
};

// ---- rows ---------------------------------------------------------------------------------------

/// What is made of a row's sum: (y * inv) * weight * scale, or y where weight is none.
struct NormOutput {
  Global<const float> weight;  // [n], or none
  float scale;
  int32_t wanted;           // 0: leave out
  Global<float> y;          // [m, n], or none
  QuantizedRows quantized;  // or none
};

/// Grid: (m, 1). y = (residual + ((branch * before) * inv) * weight) * after, which the outputs are
/// made of; or of the residual alone where branch is none.
struct NormArguments {
  int32_t n;
  float eps;
  Global<const float> branch;    // [m, n], or none
  Global<const float> weight;    // [n]
  Global<const float> residual;  // [m, n]
  float before, after;
  Global<float> y;  // [m, n]; may be branch or residual
  NormOutput output[3];
};

/// Consecutive rows of one sequence.
struct Run {
  int32_t first, count;
  int32_t sequence;
};

/// K and V of one layer of one sequence, in the layout of backend/cpu/kernels.h; a head's keys and
/// values are key_bytes and value_bytes apart.
struct KvPlace {
  Global<uint8_t> keys, values;
  int64_t key_bytes, value_bytes;
  int32_t capacity;
};

/// Grid: (heads + 2 * kv_heads, m), or (heads, m) where K and V are shared. Norms of the heads, the
/// rotation of q and k, and the store of k and v.
struct HeadsArguments {
  Global<float> q;                         // [m, heads, d], in place
  Global<const float> k, v;                // [m, kv_heads, d]; v may be k
  Global<const float> q_weight, k_weight;  // [d]
  Global<const float> cos, sin;            // [m, d / 2]
  Global<const int32_t> positions;         // [m]
  Global<const int32_t> sequence;          // [m]
  Global<const KvPlace> kv;                // of each sequence
  int32_t heads, kv_heads, d;
  int32_t q_skip;  // the first rows have no q: that of row i is in row i - q_skip
  float eps;
};

/// The positions that a row attends to, both inclusive.
struct Span {
  int32_t first, last;
};

/// Grids: scores (blocks of 128 positions that cover the longest union of spans of a tile of
/// queries, kv_heads * tiles), values ((d + 31) / 32, kv_heads * tiles). A tile is 8 of the queries
/// that the rows of a run have for a K/V head, ordered by row; kernels for few queries have tiles
/// of 2. Tiles are counted from the first run on.
struct AttentionArguments {
  Global<const float> q;     // [m, heads, d]
  Global<const Span> spans;  // [m]
  Global<const KvPlace> kv;  // of each sequence
  Global<const Run> runs;    // from that of the first of the m rows on
  int32_t first_row, m;      // number of the first of the rows in the runs, and how many there are
  int32_t tiles;             // of all runs
  int32_t heads, kv_heads, d;
  // Scores of query i of all in p[i * p_stride + t - base], base the first position of its tile's
  // spans, down to a multiple of 128; maxima of each 128 of them in maxima[i * p_stride / 128 ...].
  Global<float> p;
  Global<float> maxima;
  int32_t p_stride;         // a multiple of 128
  Global<float> out;        // [m, heads, d], or none
  QuantizedRows quantized;  // the same as rows of heads * d, or none; d % 32 == 0
};

// ---- rows of tables, elements -------------------------------------------------------------------

/// The largest of a row of logits, the first of equal ones; or the first that is NaN or +infinity.
struct Best {
  int32_t index;
  float logit;
};

/// Grid: (blocks of 256 columns, 1). y = a row of a packed matrix, times scale: that of
/// best->index or, if there are ids, of ids[best->index].
struct EmbedArguments {
  PackedMatrix matrix;
  int32_t k;
  Global<const int32_t> ids;  // or none
  float scale;
  Global<float> y;  // [k]
  Global<const Best> best;
  Global<int32_t> id;  // of the row
};

/// Grid: (blocks of 256 columns, m). y[i] = x[rows[i]], [m, n]; quantized rows where x is none.
struct GatherArguments {
  Global<const float> x;
  QuantizedRows from, to;
  Global<const int32_t> rows;
  int32_t n;
  Global<float> y;
};

/// Grid: (blocks of 256 elements, 1), of n elements.
struct ElementsArguments {
  Global<const float> x, other;
  float factor;
  int32_t n;
  Global<float> y;
  QuantizedRows quantized;  // of quantize and gelu_mul: rows of multiples of 32, or none
};

/// Grid: (blocks of 256 columns, m). y[i] = sum over j of weights[i][j] * x[places[i][j]].
struct WeightedSumArguments {
  Global<const float> x;
  Global<const int32_t> places;  // [m, terms]
  Global<const float> weights;   // [m, terms]
  int32_t terms, n;
  Global<float> y;  // [m, n]
};

// ---- choices ------------------------------------------------------------------------------------

/// Grids: head_softcap (parts, m), best_of_parts (1, m). Logits become cap * tanh(logit / cap), in
/// place, where cap is not 0.
struct HeadArguments {
  Global<float> logits;  // [m, n]
  int32_t n, parts;
  float cap;
  Global<Best> part_best;  // [m, parts]
  Global<Best> best;       // [m]
};

/// Grid: (blocks of 256 clusters, 1). The `top` best of n scores, best first, the first of equals.
struct TopArguments {
  Global<const float> scores;
  int32_t n, top;
  Global<MatrixRows> chosen;  // [top]: {cluster, rank, 1}
};

/// Grid: (blocks of 256 candidates, 1). The tokens of the chosen clusters in ascending order, with
/// their logits. A cluster's tokens are in ascending order, too.
struct CandidatesArguments {
  Global<const MatrixRows> chosen;  // [top]
  Global<const int32_t> tokens;     // [clusters][per_cluster]
  Global<const float> logits;       // [top][per_cluster]
  int32_t top, per_cluster;
  Global<int32_t> candidates;   // [top * per_cluster]
  Global<float> sorted_logits;  // likewise
};

/// Grid: (1, 1). Slots are ordered by row, then by rank of the expert; places are the slots grouped
/// by expert.
struct RouteArguments {
  Global<const float> scores;            // [m, experts]
  Global<const float> per_expert_scale;  // [experts]
  int32_t m, experts, used;
  Global<int32_t> slot_expert;            // [slots]
  Global<float> slot_weight;              // [slots]
  Global<int32_t> slot_place, place_row;  // [slots]
  Global<MatrixRows> list;                // [experts]: of those in use, in order; then of none
};

}  // namespace gpu
}  // namespace gemtp
