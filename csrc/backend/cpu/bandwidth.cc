#include "backend/cpu/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "base/clock.h"
#include "base/cpu_info.h"
#include "base/error.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace gemtp {
namespace {

constexpr std::align_val_t kHugePage{size_t{2} << 20};
constexpr int64_t kPiece = int64_t{4} << 20;  // read by a thread at a time
constexpr int64_t kLine = 64;

int64_t last_level_cache() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  return std::max<int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
#else
  return 0;
#endif
}

int64_t default_bytes() {
  constexpr int64_t kLow = int64_t{512} << 20, kHigh = int64_t{1} << 30;
  const int64_t wanted = std::clamp(4 * last_level_cache(), kLow, kHigh);
  const auto memory = static_cast<int64_t>(physical_memory());
  return std::max(memory ? std::min(wanted, memory / 8) : wanted, 4 * kPiece);
}

// These loads exist on every machine of the architecture. Wider ones would not help a core that
// waits for memory: 16-byte and 32-byte loads measure the same.
#if defined(__x86_64__) || defined(_M_X64)
using Lane = __m128i;
inline Lane zero() { return _mm_setzero_si128(); }
inline Lane load_xor(Lane a, const uint8_t* p) {
  return _mm_xor_si128(a, _mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}
inline uint64_t low(Lane a) { return static_cast<uint64_t>(_mm_cvtsi128_si64(a)); }
inline void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}
#elif defined(__aarch64__)
using Lane = uint64x2_t;
inline Lane zero() { return vdupq_n_u64(0); }
inline Lane load_xor(Lane a, const uint8_t* p) {
  return veorq_u64(a, vld1q_u64(reinterpret_cast<const uint64_t*>(p)));
}
inline uint64_t low(Lane a) { return vgetq_lane_u64(a, 0); }
inline void prefetch(const uint8_t* p) { __builtin_prefetch(p); }
#else
struct Lane {
  uint64_t a, b;
};
inline Lane zero() { return {0, 0}; }
inline Lane load_xor(Lane a, const uint8_t* p) {
  Lane b;
  std::memcpy(&b, p, sizeof b);
  return {a.a ^ b.a, a.b ^ b.b};
}
inline uint64_t low(Lane a) { return a.a ^ a.b; }
inline void prefetch(const uint8_t*) {}
#endif

// Reads one piece as kStreams interleaved streams, each of which prefetches kAhead bytes ahead (0:
// nothing). The last prefetches may leave the buffer, which is harmless: a hint never faults.
template <int kStreams, int64_t kAhead>
uint64_t read_piece(const uint8_t* piece) {
  constexpr int64_t kStride = kPiece / kStreams;
  Lane a = zero(), b = zero(), c = zero(), d = zero();
  for (int64_t i = 0; i < kStride; i += kLine)
    for (int s = 0; s < kStreams; ++s) {
      const uint8_t* p = piece + s * kStride + i;
      if constexpr (kAhead > 0) prefetch(p + kAhead);
      a = load_xor(a, p);
      b = load_xor(b, p + 16);
      c = load_xor(c, p + 32);
      d = load_xor(d, p + 48);
    }
  return low(a) ^ low(b) ^ low(c) ^ low(d);
}

using Reader = uint64_t (*)(const uint8_t*);
constexpr Reader kPlain[] = {read_piece<1, 0>, read_piece<4, 0>, read_piece<8, 0>};
constexpr Reader kPrefetched[] = {read_piece<4, 512>, read_piece<4, 1024>, read_piece<8, 512>};

}  // namespace

void ReadBandwidth::Free::operator()(uint8_t* p) const { ::operator delete[](p, kHugePage); }

ReadBandwidth::ReadBandwidth(int threads, int64_t bytes) : bytes_(0), pool_(threads) {
  if (bytes == 0) bytes = default_bytes();
  if (bytes < 4 * kPiece)
    throw Error(ErrorKind::kArgument,
                format("a buffer of %lld bytes is too small to measure memory with; use at least "
                       "%lld",
                       static_cast<long long>(bytes), static_cast<long long>(4 * kPiece)));
  bytes_ = bytes / kPiece * kPiece;
  buffer_.reset(static_cast<uint8_t*>(::operator new[](static_cast<size_t>(bytes_), kHugePage)));
  uint8_t* data = buffer_.get();
#if defined(__linux__)
  madvise(data, static_cast<size_t>(bytes_), MADV_HUGEPAGE);  // page walks are not to be measured
#endif
  pool_.parallel_for(bytes_ / kPiece, 1, [data](int64_t begin, int64_t end, int) {
    std::memset(data + begin * kPiece, 1, static_cast<size_t>((end - begin) * kPiece));
  });
}

ReadBandwidth::~ReadBandwidth() = default;

double ReadBandwidth::fastest(bool prefetch) {
  const uint8_t* data = buffer_.get();
  const ThreadPool::Pass pass(pool_);
  std::atomic<uint64_t> sum{0};  // the sum is used, so that the compiler keeps the loads
  double best = 0;
  for (const Reader read : prefetch ? kPrefetched : kPlain) {
    const double start = monotonic_seconds();
    pool_.parallel_for(bytes_ / kPiece, 1, [&](int64_t begin, int64_t end, int) {
      uint64_t x = 0;
      for (int64_t i = begin; i < end; ++i) x ^= read(data + i * kPiece);
      sum.fetch_xor(x, std::memory_order_relaxed);
    });
    best = std::max(best, static_cast<double>(bytes_) / (monotonic_seconds() - start));
  }
  // Every byte is 1 and every stream has an even number of lines.
  GEMTP_ASSERT(sum == 0);
  return best;
}

}  // namespace gemtp
