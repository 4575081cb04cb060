// Norms, heads, elements and embeddings on the emulated GPU against the scalar kernels.
#include <cmath>

#include "backend/cpu/pack.h"
#include "backend/cpu/packed_form.h"
#include "gguf/blocks.h"
#include "gpu_testing.h"

namespace {

using namespace gemtp;
using namespace gemtp::gpu_testing;
using kernel_testing::draw;
using kernel_testing::same;

const gemtp_kernels& scalar = gemtp_kernels_scalar;

std::vector<float> flushed(std::vector<float> x) {
  for (float& v : x) v = gemtp_flush(v);
  return x;
}
std::vector<float> values(Random& random, int64_t n, Values kind = Values::kMixed) {
  return flushed(draw(random, n, kind));
}

}  // namespace

TEST_CASE("gpu quantize") {
  Random random(11);
  for (int i = 0; i < 30; ++i) {
    const int64_t n = 32 * (1 + random.below(40));
    auto x = draw(random, n, static_cast<Values>(i % 3));
    if (i % 5 == 0) {
      for (int64_t j = 0; j < 32; ++j) x[static_cast<size_t>(j)] *= GEMTP_TINY / 2;
      x[0] = i % 2 ? GEMTP_TINY : std::nextafter(GEMTP_TINY, 0.0f);
    }
    if (i % 7 == 0) x[static_cast<size_t>(random.below(n))] = std::nanf("");
    for (uint64_t seed = 0; seed < orders(); ++seed) {
      TestDevice device(seed);
      ElementsArguments a{};
      a.x = device.upload(x);
      a.n = static_cast<int32_t>(n);
      const QuantizedResult q(device, n / 32);
      a.quantized = q.rows;
      device.launch("quantize", (n + 255) / 256, 1, a);
      CHECK(q.equals(device, quantized(x.data(), 1, n, n)));
    }
  }
}

TEST_CASE("gpu norm: a branch joins the residual, whose norms are quantized") {
  Random random(12);
  for (int i = 0; i < 40; ++i) {
    const int64_t m = 1 + random.below(4);
    const int64_t n = i % 4 == 0   ? 4096 + 32 * random.below(9)
                      : i % 4 == 1 ? 1 + random.below(90)
                                   : 32 * (1 + random.below(30));
    const bool has_branch = i % 5 != 1;
    const float eps = 1e-6f, before = i % 2 ? 1.0f : 0.025f, after = i % 3 ? 1.0f : 0.7071f;
    const auto branch = values(random, m * n), residual = values(random, m * n);
    const auto weight = values(random, n), next = values(random, n);
    // What the operations of the CPU's backend give.
    auto sum = residual;
    if (has_branch) {
      auto b = branch;
      scalar.scale(b.data(), before, m * n, b.data());
      for (int64_t r = 0; r < m; ++r)
        scalar.rms_norm_add(&b[static_cast<size_t>(r * n)], weight.data(), n, eps,
                            &residual[static_cast<size_t>(r * n)],
                            &sum[static_cast<size_t>(r * n)]);
      scalar.scale(sum.data(), after, m * n, sum.data());
    }
    auto normed = sum, scaled = sum;
    for (int64_t r = 0; r < m; ++r)
      scalar.rms_norm(&sum[static_cast<size_t>(r * n)], next.data(), n, eps,
                      &normed[static_cast<size_t>(r * n)]);
    scalar.scale(normed.data(), 0.5f, m * n, scaled.data());

    for (uint64_t seed = 0; seed < orders(); ++seed) {
      TestDevice device(seed);
      NormArguments a{};
      a.n = static_cast<int32_t>(n);
      a.eps = eps;
      a.before = before;
      a.after = after;
      if (has_branch) a.branch = device.upload(branch);
      const auto x = device.upload(residual);  // the sum takes its place
      a.residual = x;
      a.weight = device.upload(weight);
      a.y = x;
      const auto w = device.upload(next);
      const auto y = device.allocate<float>(m * n), half = device.allocate<float>(m * n);
      const QuantizedResult q(device, m * n / 32 + 1), raw(device, m * n / 32 + 1);
      const bool whole = n % 32 == 0;
      a.output[0] = {w, 1.0f, 1, y, whole ? q.rows : QuantizedRows{}};
      a.output[1] = {w, 0.5f, 1, half, {}};
      a.output[2] = {{}, 1.0f, whole, {}, raw.rows};
      device.launch("norm", m, 1, a);
      CAPTURE(n);
      CAPTURE(i);
      CHECK(same(device.download(x, m * n), sum));
      CHECK(same(device.download(y, m * n), normed));
      CHECK(same(device.download(half, m * n), scaled));
      if (!whole) continue;
      CHECK(q.equals(device, quantized(normed.data(), m, n, n)));
      CHECK(raw.equals(device, quantized(sum.data(), m, n, n)));
    }
  }
}

TEST_CASE("gpu heads: norms, rotation, keys and values stored") {
  Random random(13);
  for (int i = 0; i < 24; ++i) {
    const bool f16 = i % 2, own = i % 5 != 4;
    const int64_t m = 1 + random.below(4), kv_heads = 1 + random.below(2);
    const int64_t heads = kv_heads * (1 + random.below(3));
    const int64_t d = i % 3 ? 2 * (1 + random.below(40)) : 256;
    const int64_t capacity = 16 * (1 + random.below(3)), first = random.below(100);
    const int64_t skip = own ? random.below(m) : 0;
    const float eps = 1e-6f;
    const bool same_kv = i % 4 == 3;
    auto q = values(random, (m - skip) * heads * d);
    const auto k = values(random, m * kv_heads * d);
    const auto v = same_kv ? k : values(random, m * kv_heads * d);
    const auto qw = values(random, d), kw = values(random, d);
    const auto cos = values(random, m * d / 2), sin = values(random, m * d / 2);
    std::vector<int32_t> positions;
    for (int64_t r = 0; r < m; ++r) positions.push_back(static_cast<int32_t>(first + r));

    HostKv kv(kv_heads, d, capacity, f16);
    const HostKv before = kv;
    auto expected_q = q;
    for (int64_t r = 0; r < m; ++r) {
      const float *c = &cos[static_cast<size_t>(r * d / 2)],
                  *s = &sin[static_cast<size_t>(r * d / 2)];
      for (int64_t h = 0; h < kv_heads && own; ++h) {
        std::vector<float> key(static_cast<size_t>(d)), value(key);
        scalar.rms_norm(&k[static_cast<size_t>((r * kv_heads + h) * d)], kw.data(), d, eps,
                        key.data());
        scalar.rope(key.data(), c, s, d);
        scalar.rms_norm(&v[static_cast<size_t>((r * kv_heads + h) * d)], nullptr, d, eps,
                        value.data());
        kv.store(h, first + r, key.data(), value.data());
      }
      for (int64_t h = 0; h < heads && r >= skip; ++h) {
        float* head = &expected_q[static_cast<size_t>(((r - skip) * heads + h) * d)];
        scalar.rms_norm(head, qw.data(), d, eps, head);
        scalar.rope(head, c, s, d);
      }
    }
    for (uint64_t seed = 0; seed < orders(); ++seed) {
      TestDevice device(seed);
      HeadsArguments a{};
      a.q = device.upload(q);
      a.k = device.upload(k);
      a.v = same_kv ? a.k : Global<const float>(device.upload(v));
      a.q_weight = device.upload(qw);
      a.k_weight = device.upload(kw);
      a.cos = device.upload(cos);
      a.sin = device.upload(sin);
      a.positions = device.upload(positions);
      // Of two sequences; the rows are the second one's.
      const KvPlace place = upload(device, before);
      a.kv = device.upload(std::vector<KvPlace>{{}, place});
      a.sequence = device.upload(std::vector<int32_t>(static_cast<size_t>(m), 1));
      a.heads = static_cast<int32_t>(heads);
      a.kv_heads = static_cast<int32_t>(kv_heads);
      a.d = static_cast<int32_t>(d);
      a.q_skip = static_cast<int32_t>(skip);
      a.eps = eps;
      device.launch(f16 ? "heads_f16" : "heads_f32", heads + (own ? 2 * kv_heads : 0), m, a);
      CAPTURE(i);
      CHECK(same(device.download(a.q, (m - skip) * heads * d), expected_q));
      CHECK(device.download(place.keys, static_cast<int64_t>(kv.keys.size())) == kv.keys);
      CHECK(device.download(place.values, static_cast<int64_t>(kv.values.size())) == kv.values);
    }
  }
}

TEST_CASE("gpu elements") {
  Random random(14);
  for (const int64_t n : {1, 32, 255, 257, 640}) {
    const auto x = values(random, n, Values::kSpecial), other = values(random, n, Values::kSpecial);
    std::vector<float> capped(x), gated(x);
    scalar.softcap(x.data(), n, 0.3f, capped.data());
    scalar.gelu_mul(x.data(), other.data(), n, gated.data());
    for (uint64_t seed = 0; seed < orders(); ++seed) {
      TestDevice device(seed);
      ElementsArguments a{};
      a.x = device.upload(x);
      a.other = device.upload(other);
      a.factor = 0.3f;
      a.n = static_cast<int32_t>(n);
      a.y = device.allocate<float>(n);
      const auto run = [&](const char* kernel) {
        device.launch(kernel, (n + 255) / 256, 1, a);
        return device.download(a.y, n);
      };
      CHECK(same(run("copy"), x));
      CHECK(same(run("softcap"), capped));
      CHECK(same(run("gelu_mul"), gated));
      if (n % 32 == 0) {
        const QuantizedResult q(device, n / 32);
        a.quantized = q.rows;
        CHECK(same(run("gelu_mul"), gated));
        CHECK(q.equals(device, quantized(gated.data(), 1, n, n)));
      }
    }
  }
}

TEST_CASE("gpu rows: gathered, and summed with weights") {
  Random random(15);
  const int64_t n = 320, m = 5, terms = 3, from = 7;
  const auto x = values(random, from * n);
  const auto weights = values(random, m * terms);
  std::vector<int32_t> rows, places;
  for (int64_t i = 0; i < m; ++i) rows.push_back(static_cast<int32_t>(random.below(from)));
  for (int64_t i = 0; i < m * terms; ++i)
    places.push_back(static_cast<int32_t>(random.below(from)));
  std::vector<float> gathered, summed(static_cast<size_t>(m * n));
  for (const int32_t r : rows)
    gathered.insert(gathered.end(), x.begin() + r * n, x.begin() + (r + 1) * n);
  for (int64_t i = 0; i < m * terms; ++i)
    scalar.axpy(weights[static_cast<size_t>(i)],
                &x[static_cast<size_t>(places[static_cast<size_t>(i)] * n)], n,
                &summed[static_cast<size_t>(i / terms * n)]);
  for (uint64_t seed = 0; seed < orders(); ++seed) {
    TestDevice device(seed);
    GatherArguments a{};
    a.rows = device.upload(rows);
    a.n = static_cast<int32_t>(n);
    a.from = quantized(x.data(), from, n, n).upload(device);
    const QuantizedResult q(device, m * n / 32);
    a.to = q.rows;
    device.launch("gather", 2, m, a);
    CHECK(q.equals(device, quantized(gathered.data(), m, n, n)));
    a.x = device.upload(x);
    a.y = device.allocate<float>(m * n);
    device.launch("gather", 2, m, a);
    CHECK(same(device.download(a.y, m * n), gathered));

    WeightedSumArguments b{a.x, device.upload(places),        device.upload(weights), terms,
                           n,   device.allocate<float>(m * n)};
    device.launch("weighted_sum", 2, m, b);
    CHECK(same(device.download(b.y, m * n), summed));
  }
}

namespace {

// Rows of a type with finite scales, as a file has them.
std::vector<uint8_t> file_rows(Random& random, DType type, int64_t rows, int64_t cols) {
  const DTypeInfo& info = *dtype_info(static_cast<uint32_t>(type));
  std::vector<uint8_t> bytes;
  std::vector<uint8_t> block(static_cast<size_t>(info.bytes));
  for (int64_t i = 0; i < rows * cols / info.block; ++i) {
    DecodedBlock decoded;
    do {
      for (uint8_t& b : block) b = static_cast<uint8_t>(random.bits());
      if (type == DType::kF32) block[3] = 0x3e;
      if (type == DType::kBF16) block[1] = 0x3e;
      if (type == DType::kF16) block[1] = 0x3c;
    } while (info.block > 1 && !decode_block(type, block.data(), &decoded));
    bytes.insert(bytes.end(), block.begin(), block.end());
  }
  return bytes;
}

}  // namespace

TEST_CASE("gpu embed: rows of packed matrices are those of the file") {
  Random random(16);
  for (uint32_t number = 0; number < 64; ++number) {
    const auto type = static_cast<DType>(number);
    if (!dtype_info(number) || !dtype_supported(number)) continue;
    const PackedForm& form = packed_form(type);
    const std::string kernel = std::string("embed_") + kFormatNames[form.format];
    if (!find_kernel(kernel)) continue;
    const int64_t rows = 20, k = 512;
    const auto bytes = file_rows(random, type, rows, k);
    WeightSource source{};
    source.type = type;
    source.rows = rows;
    source.cols = k;
    source.data = bytes.data();
    kernel_testing::Aligned<uint8_t> tiles(2 * tile_bytes(type, k));
    for (int64_t t = 0; t < 2; ++t) {
      const uint8_t* row[GEMTP_TILE] = {};
      for (int64_t r = 0; r < 16 && t * 16 + r < rows; ++r)
        row[r] = bytes.data() + (t * 16 + r) * source.row_bytes();
      REQUIRE(pack_tile(type, k, row, tiles.get() + t * tile_bytes(type, k)) == 0);
    }
    const std::vector<int32_t> ids = {0, 19, 7, 16};
    Scratch<uint8_t> buffer;
    for (uint64_t seed = 0; seed < orders(); ++seed) {
      TestDevice device(seed);
      EmbedArguments a{};
      a.matrix.tiles = device.upload(tiles.get(), 2 * tile_bytes(type, k));
      a.matrix.tile_bytes = tile_bytes(type, k);
      a.matrix.rows = rows;
      if (form.table) std::memcpy(&a.matrix.table, form.table, 16);
      a.k = static_cast<int32_t>(k);
      const auto list = device.upload(ids);
      a.scale = 1.5f;
      a.y = device.allocate<float>(k);
      a.id = device.allocate<int32_t>(1);
      CAPTURE(number);
      // The row of a best logit, by its number and through a list.
      for (int32_t i = 0; i < 8; ++i) {
        const bool listed = i < 4;
        const int32_t id = listed ? ids[static_cast<size_t>(i)] : ids[static_cast<size_t>(7 - i)];
        a.best = device.upload(std::vector<Best>{{listed ? i : id, 1.0f}});
        a.ids = listed ? list : Global<int32_t>();
        device.launch(kernel, 2, 1, a);
        CHECK(device.download(a.id, 1) == std::vector<int32_t>{id});
        std::vector<float> row(static_cast<size_t>(k));
        dequantize(source, id, 0, k, buffer, row.data());
        scalar.scale(row.data(), 1.5f, k, row.data());
        CHECK(same(device.download(a.y, k), row));
      }
    }
  }
}
