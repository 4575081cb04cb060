#include <doctest/doctest.h>

#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/packed_form.h"
#include "base/aligned_memory.h"
#include "base/mapped_file.h"
#include "gguf_builder.h"

using namespace gemtp;
using gemtp::testing::TempFile;

namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0};

std::vector<uint8_t> random_bytes(int64_t n) {
  std::mt19937 rng(static_cast<uint32_t>(n));
  std::vector<uint8_t> bytes(static_cast<size_t>(n));
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng() & 0x3f);  // every float of them is finite
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
          CHECK(pack_tile(source, rows ? rows->data() : nullptr, n, t, tile.data()) == 0);
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

TEST_CASE("loading reports its way through a source: each byte once, in order, next before done") {
  WeightSource source{DType::kF32, 3001, 2048};  // 24 MB: more than one report
  const std::vector<uint8_t> bytes(static_cast<size_t>(source.rows * source.row_bytes()), 1);
  source.data = bytes.data();
  const uint8_t *next = source.data, *done = source.data;
  const LoadProgress progress{[&](const uint8_t* p, int64_t n) {
                                CHECK(p == next);
                                next += n;
                              },
                              [&](const uint8_t* p, int64_t n) {
                                CHECK(p == done);
                                done += n;
                                CHECK(next >= done);
                              }};
  const auto backend = make_cpu_backend(2, "");
  const auto matrix = backend->load_matrix(source, "w", nullptr, &progress);
  const uint8_t* const end = source.data + bytes.size();
  CHECK(next == end);
  CHECK(done == end);
  CHECK(matrix->bytes == 188 * tile_bytes(source.type, source.cols));
}

TEST_CASE("what a file gives back takes no neighbour with it") {
  std::string content(300000, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 % 251);
  const TempFile temp(content);
  for (const bool mmap : {true, false}) {
    const auto file = MappedFile::open(temp.path(), mmap);
    CHECK(file->mapped() == mmap);
    file->prefetch(5000, 100000);
    file->expect_random(0, content.size() + 1);
    file->release(0, content.size());
    CHECK(std::memcmp(file->data(), content.data(), content.size()) == 0);
    constexpr size_t kBegin = 5001, kEnd = 200001;
    file->discard(kBegin, kEnd - kBegin);
    file->discard(content.size(), 5);
    file->discard(7, 20);  // less than a page: nothing
    CHECK(std::memcmp(file->data(), content.data(), kBegin) == 0);
    CHECK(std::memcmp(file->data() + kEnd, content.data() + kEnd, content.size() - kEnd) == 0);
    if (mmap) CHECK(std::memcmp(file->data(), content.data(), content.size()) == 0);
  }
}

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
