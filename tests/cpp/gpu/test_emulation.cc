// The emulated device finds what it is there to find, with kernels that are wrong on purpose.
#include <cmath>

#include "backend/gpu/emulated/gpu.h"
// The words come first.
#include "backend/gpu/kernels/math.h"
#include "gpu_testing.h"

namespace {

using namespace gemtp::gpu;

struct Arguments {
  Global<int32_t> x;
  int32_t n;
};
struct Memory {
  SharedArray<int32_t, 64> values;
};

// A kernel of two warps.
template <class Body>
Kernel kernel() {
  return {"wrong", 64, sizeof(Arguments), sizeof(Memory),
          [](const void* a, void* m, const Place& at) {
            Body::run(*static_cast<const Arguments*>(a), *static_cast<Memory*>(m), at);
          }};
}

// The sentence with which a launch of two blocks ends; empty if nothing is found.
template <class Body>
std::string found(int64_t n = 64) {
  EmulatedDevice device(0, true);
  const std::vector<int32_t> zeros(static_cast<size_t>(n));
  const Arguments a{Global<int32_t>(device.allocate(n * 4)), static_cast<int32_t>(n)};
  device.write(a.x.address, zeros.data(), n * 4);
  try {
    device.launch(kernel<Body>(), 2, 1, &a);
  } catch (const KernelError& e) {
    return e.what();
  }
  return "";
}

#define BODY(name)                                             \
  struct name {                                                \
    static void run(const Arguments& a, Memory& m, Place at) { \
      static_cast<void>(a), static_cast<void>(m), static_cast<void>(at);
#define END \
  }         \
  }         \
  ;

BODY(Right)
m.values[at.index] = at.index;
barrier();
if (at.block == 0) a.x[at.index] = m.values[63 - at.index];
END

    BODY(NoBarrier) m.values[at.index] = at.index;
if (at.block == 0) a.x[at.index] = m.values[63 - at.index];
END

    BODY(WithinWarp) m.values[at.index] = at.index;
warp_barrier();
if (at.block == 0) a.x[at.index] = m.values[at.index ^ 31];
END

    BODY(AcrossWarps) m.values[at.index] = at.index;
warp_barrier();
if (at.block == 0) a.x[at.index] = m.values[at.index ^ 32];
END

    BODY(BothBlocks) a.x[at.index] = at.index;
END

    BODY(ReadBeforeWrite) if (at.block == 1) m.values[at.index] = a.x[at.index];
if (at.block == 0) a.x[at.index] = 1;
END

    BODY(BehindTheEnd) if (at.block == 0) a.x[at.index + 1] = 1;
END

    BODY(BeforeTheBeginning) if (at.block == 0) m.values[at.index] = a.x[at.index - 1];
END

    BODY(SharedBehindTheEnd) m.values[at.index + 1] = 1;
END

    BODY(MissedBarrier) if (at.index < 63) barrier();
END

    BODY(TwoBarriers) if (at.index < 32) barrier();
else barrier();
END

    BODY(MissedShuffle) if (at.lane < 31) m.values[at.index] = shuffle_xor(at.index, at.lane, 1);
END

    BODY(Misaligned) if (at.block == 0) as_global<Words2>(a.x + 1)[0] = Words2{0, 0};
END

    BODY(OtherAddress) Global<int32_t>(uint64_t{9} << 36)[0] = 1;
END

    bool
    says(const std::string& sentence, const char* part) {
  return sentence.find(part) != std::string::npos && sentence.find("wrong: block") == 0;
}

}  // namespace

TEST_CASE("emulated device: what it finds") {
  CHECK(found<Right>() == "");
  CHECK(found<WithinWarp>() == "");
  const std::string race = found<NoBarrier>();
  CHECK((says(race, "another thread writes") || says(race, "another thread reads")));
  const std::string across = found<AcrossWarps>();
  CHECK((says(across, "another thread writes") || says(across, "another thread reads")));
  CHECK(says(found<BothBlocks>(), "writes what another thread writes"));
  const std::string read = found<ReadBeforeWrite>();
  CHECK((says(read, "another thread writes") || says(read, "another thread reads")));
  CHECK(says(found<BehindTheEnd>(), "writes bytes 256 to 259 of an allocation of 256"));
  CHECK(says(found<BeforeTheBeginning>(), "address that is none"));
  CHECK(says(found<SharedBehindTheEnd>(), "element 64 of a shared array of 64"));
  CHECK(says(found<MissedBarrier>(), "waits at line"));
  CHECK(says(found<TwoBarriers>(), "is at the barrier of line"));
  CHECK(says(found<MissedShuffle>(), "waits at line"));
  CHECK(says(found<Misaligned>(), "not aligned"));
  CHECK(says(found<OtherAddress>(), "address that is none"));
}

TEST_CASE("emulated device: goes on after a kernel failed") {
  CHECK(found<MissedBarrier>() != "");
  CHECK(found<Right>() == "");
}

TEST_CASE("emulated device: copies stay within allocations") {
  EmulatedDevice device;
  const uint64_t at = device.allocate(16);
  uint8_t bytes[32] = {};
  device.write(at, bytes, 16);
  CHECK_THROWS_AS(device.write(at + 1, bytes, 16), KernelError);
  CHECK_THROWS_AS(device.read(at, bytes, 17), KernelError);
  CHECK_THROWS_AS(device.read(at + 16, bytes, 1), KernelError);
  device.release(at);
  CHECK_THROWS_AS(device.read(at, bytes, 1), KernelError);
}

TEST_CASE("gpu halves: rounding is to nearest even") {
  // Around every half: itself, the middle to the next one, and the floats beside that.
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const float low = gemtp_f16_to_f32(static_cast<uint16_t>(h));
    const float high = h == 0x7bff ? 65536.0f : gemtp_f16_to_f32(static_cast<uint16_t>(h + 1));
    const float middle = (low + high) / 2;
    for (const float x : {low, std::nextafter(middle, 0.0f), middle, std::nextafter(middle, high)})
      for (const float v : {x, -x}) REQUIRE(float_to_half(v) == gemtp_f32_to_f16(v));
  }
  for (const float v : {std::nanf(""), gemtp::kernel_testing::kInf, 1e30f})
    CHECK(float_to_half(v) == gemtp_f32_to_f16(v));
}
