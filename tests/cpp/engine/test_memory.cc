#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/packed_form.h"
#include "base/aligned_memory.h"
#include "base/error.h"
#include "base/float16.h"
#include "base/input_file.h"
#include "gguf_builder.h"
#include "host_memory.h"

using namespace gemtp;
using gemtp::testing::TempFile;

namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0};

std::vector<uint8_t> random_bytes(int64_t n) {
  std::mt19937 rng(static_cast<uint32_t>(n));
  std::vector<uint8_t> bytes(static_cast<size_t>(n));
  // Every float of them is finite and does not count as zero.
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(0x2c + rng() % 0x14);
  return bytes;
}

// Where kernels.h says that byte `at` of row `row`'s data lies in its tile; -1: not in a tile.
int64_t place(DType type, int64_t cols, int64_t lane, int64_t at) {
  const int64_t size = dtype_info(static_cast<uint32_t>(type))->bytes;
  if (type != DType::kQ8_0 && type != DType::kQ4_0)
    return (at / size * GEMTP_TILE + lane) * size + at % size;
  const int64_t quants = size - 2, block = at / size, byte = at % size - 2;
  if (byte < 0) return cols / 32 * quants * GEMTP_TILE + (block * GEMTP_TILE + lane) * 2 + byte + 2;
  return block * quants * GEMTP_TILE + (byte / 4 * GEMTP_TILE + lane) * 4 + byte % 4;
}

}  // namespace

TEST_CASE("every byte of a weight is packed to its documented place") {
  for (DType type : kTypes)
    for (int64_t cols : {32, 64, 96, 7, 20, 33}) {
      if (cols % dtype_info(static_cast<uint32_t>(type))->block) continue;
      WeightSource source{type, 37, cols};
      const std::vector<uint8_t> bytes = random_bytes(source.rows * source.row_bytes());
      source.data = bytes.data();
      const std::vector<int32_t> order{36, 0, 5, 5, 17};
      for (const auto* rows : {static_cast<const std::vector<int32_t>*>(nullptr), &order}) {
        const int64_t n = rows ? 5 : 37;
        std::vector<uint8_t> tile(static_cast<size_t>(tile_bytes(type, cols)), 0xee);
        for (int64_t t = 0; t * GEMTP_TILE < n; ++t) {
          const uint8_t* from[GEMTP_TILE] = {};
          for (int64_t i = 0; i < GEMTP_TILE && t * GEMTP_TILE + i < n; ++i) {
            const int64_t out = t * GEMTP_TILE + i;
            from[i] =
                source.data + (rows ? (*rows)[static_cast<size_t>(out)] : out) * source.row_bytes();
          }
          CHECK(pack_tile(type, cols, from, tile.data()) == 0);
          bool same = true;
          for (int64_t lane = 0; lane < GEMTP_TILE; ++lane) {
            const int64_t out = t * GEMTP_TILE + lane;
            const int64_t row = out >= n ? -1 : rows ? (*rows)[static_cast<size_t>(out)] : out;
            for (int64_t at = 0; at < source.row_bytes(); ++at) {
              const uint8_t want =
                  row < 0 ? 0 : bytes[static_cast<size_t>(row * source.row_bytes() + at)];
              same &= tile[static_cast<size_t>(place(type, cols, lane, at))] == want;
            }
          }
          CHECK(same);
        }
      }
    }
}

TEST_CASE("weights and scales below 2^-40 are packed, and rows embedded, as zeros") {
  const auto backend = make_cpu_backend(1, "");
  constexpr float kTiny = 0x1p-40f;
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    const bool bf16 = type == DType::kBF16;
    const std::vector<float> values{kTiny,
                                    -kTiny,
                                    bf16 ? 0x0.ffp-40f : std::nextafter(kTiny, 0.0f),
                                    bf16 ? -0x0.ffp-40f : -std::nextafter(kTiny, 0.0f),
                                    0x1p-126f,
                                    0x1p-133f,
                                    -0.0f,
                                    1.5f,
                                    0x1p-24f};
    for (const int64_t rows : {3, 40})  // the values in rows of 70, from the beginning on
      for (const int64_t cols : {7, 70}) {
        std::vector<uint8_t> bytes;
        std::vector<float> numbers;
        for (int64_t i = 0; i < rows * cols; ++i) {
          const float v = values[static_cast<size_t>(i % static_cast<int64_t>(values.size()))];
          const uint32_t bits = type == DType::kF32 ? gemtp_f32_bits(v)
                                : bf16              ? gemtp_f32_bits(v) >> 16
                                                    : gemtp_f32_to_f16(v);
          for (int j = 0; j < (type == DType::kF32 ? 4 : 2); ++j)
            bytes.push_back(static_cast<uint8_t>(bits >> 8 * j));
          // The smallest of f16 is 2^-24.
          numbers.push_back(std::fabs(v) < (type == DType::kF16 ? 0x1p-25f : kTiny) ? 0.0f : v);
        }
        const WeightSource source{type, rows, cols, bytes.data()};
        const auto matrix = backend->load_matrix(source);
        for (int64_t k = 0; k < cols; ++k) {  // column by column
          std::vector<float> x(static_cast<size_t>(cols)), y(static_cast<size_t>(rows));
          x[static_cast<size_t>(k)] = 0x1p30f;
          backend->matmul({{matrix.get(), at(x.data()), cols, 1, at(y.data()), rows}});
          for (int64_t r = 0; r < rows; ++r)
            REQUIRE(y[static_cast<size_t>(r)] ==
                    numbers[static_cast<size_t>(r * cols + k)] * 0x1p30f);
        }
        std::vector<float> row(static_cast<size_t>(cols));
        backend->embed(source, rows_of(*backend, {2}), 0, 1, 0, cols, 1.0f, row.data());
        CHECK(std::memcmp(row.data(), numbers.data() + 2 * cols, row.size() * 4) == 0);
      }
  }
  for (const int exponent : {0, 1, 2, 50, 87, 88, 89, 200}) {  // scales of 2^(exponent - 128)
    std::vector<uint8_t> block(17, 0x22);                      // every quant is 2
    block[0] = static_cast<uint8_t>(exponent);
    const WeightSource source{DType::kMXFP4, 1, 32, block.data()};
    const auto matrix = backend->load_matrix(source);
    const std::vector<float> x(32, 127.0f);
    float y = NAN;
    backend->matmul({{matrix.get(), at(x.data()), 32, 1, at(&y), 1}});
    CHECK(y == (exponent < 88 ? 0.0f : std::ldexp(2.0f * 127 * 32, exponent - 128)));
  }
}

TEST_CASE("weights are the same from a file and from memory, and loading reports its way") {
  WeightSource source{DType::kF32, 3001, 2048};  // 24 MB: more than one report
  const std::vector<uint8_t> bytes = random_bytes(source.rows * source.row_bytes());
  const TempFile temp("before" + std::string(bytes.begin(), bytes.end()) + "behind");
  const auto file = InputFile::open(temp.path());
  std::vector<float> products[2];
  for (const bool in_memory : {true, false}) {
    source.data = in_memory ? bytes.data() : nullptr;
    source.file = file.get();
    source.offset = 6;
    std::vector<int64_t> read;
    const auto backend = make_cpu_backend(2, "");
    const auto matrix =
        backend->load_matrix(source, nullptr, [&](int64_t n) { read.push_back(n); });
    CHECK(read.size() == 2);
    CHECK(std::accumulate(read.begin(), read.end(), int64_t{0}) ==
          static_cast<int64_t>(bytes.size()));
    CHECK(matrix->bytes == 188 * tile_bytes(source.type, source.cols));
    const std::vector<float> x(2048, 1.0f);
    std::vector<float>& y = products[in_memory];
    y.resize(3001);
    backend->matmul({{matrix.get(), at(x.data()), 2048, 1, at(y.data()), 3001}});

    const AlignedBytes copy = backend->read(source);
    CHECK(std::memcmp(copy.get(), bytes.data(), bytes.size()) == 0);
    const int32_t ids[] = {3000, 0, 1234};
    std::vector<float> row(3 * 7);
    const PassRows rows = rows_of(*backend, {ids, ids + 3});
    backend->embed(source, rows, 0, 3, 2041, 7, 1.0f, row.data());
    for (size_t i = 0; i < 3; ++i)
      CHECK(std::memcmp(row.data() + i * 7,
                        bytes.data() + (static_cast<size_t>(ids[i]) * 2048 + 2041) * 4, 28) == 0);
  }
  CHECK(products[0] == products[1]);
}

// On Windows nobody can write to a file that is open for reading.
#ifndef _WIN32
namespace {

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::kFile);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a file that is cut short, written to or replaced while it is open") {
  const std::string content(300000, 'x');
  const TempFile temp(content);
  const auto file = InputFile::open(temp.path());
  std::string got(content.size(), '\0');
  file->read(0, got.size(), got.data());
  CHECK(got == content);
  CHECK(message_of([&] { file->check_unchanged(); }) == "");

  std::filesystem::resize_file(temp.path(), 100001);
  file->read(100000, 1, got.data());
  for (const size_t at : {size_t{100000}, size_t{100001}, size_t{299990}})
    CHECK(message_of([&] { file->read(at, 10, got.data()); }) ==
          quoted(temp.path(), 4096) +
              " became shorter while in use: it ends at byte 100001 of 300000; put the whole file "
              "back and open it again");
  CHECK(message_of([&] { file->check_unchanged(); }).find("has 100001 bytes and had 300000") !=
        std::string::npos);
  CHECK(message_of([&] {
          WeightSource table{DType::kF32, 100, 750};
          table.file = file.get();
          const std::vector<int32_t> ids(64, 99);  // on both threads
          std::vector<float> y(ids.size() * 750);
          const auto backend = make_cpu_backend(2, "");
          backend->embed(table, rows_of(*backend, ids), 0, 64, 0, 750, 1.0f, y.data());
        }).find("became shorter") != std::string::npos);

  // The same length, other bytes.
  std::filesystem::resize_file(temp.path(), content.size());
  CHECK(message_of([&] { file->check_unchanged(); }).find("was changed while in use; open it") !=
        std::string::npos);

  const auto again = InputFile::open(temp.path());
  const TempFile other(std::string(10, 'y'));
  std::filesystem::rename(other.path(), temp.path());  // what is open stays what it was
  again->read(0, 1, got.data());
  again->check_unchanged();
  CHECK(got[0] == 'x');
}
#endif

TEST_CASE("arena pieces are aligned, disjoint, and outlive the arena") {
  std::vector<std::shared_ptr<uint8_t>> pieces;
  const size_t sizes[] = {1, 64, 100, size_t{3} << 20, size_t{9} << 20, size_t{40} << 20, 0, 777};
  {
    Arena arena;
    for (int round = 0; round < 6; ++round)
      for (const size_t n : sizes) {
        pieces.push_back(arena.allocate(n));
        CHECK(reinterpret_cast<uintptr_t>(pieces.back().get()) % 64 == 0);
        std::memset(pieces.back().get(), static_cast<int>(pieces.size()), n);
      }
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    const size_t n = sizes[i % std::size(sizes)];
    if (n == 0) continue;
    CHECK(pieces[i].get()[0] == static_cast<uint8_t>(i + 1));
    CHECK(pieces[i].get()[n - 1] == static_cast<uint8_t>(i + 1));
  }
  const AlignedBytes large = allocate_aligned(size_t{5} << 20);
  CHECK(reinterpret_cast<uintptr_t>(large.get()) % (size_t{2} << 20) == 0);
}
