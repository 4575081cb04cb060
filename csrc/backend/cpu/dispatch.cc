#include "backend/cpu/dispatch.h"

#include <cstdint>
#include <cstdlib>

#include "base/error.h"

#if defined(__x86_64__) || defined(_M_X64)
#define GEMTP_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define GEMTP_ARM64 1
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#endif
#endif

namespace gemtp {
namespace {

struct CpuFeatures {
  bool avx2 = false;        // AVX2, FMA, F16C
  bool avxvnni = false;     // and AVX-VNNI
  bool avx512 = false;      // F, BW, DQ, VL on top of AVX2
  bool avx512vnni = false;  // and VNNI

  bool neon_dotprod = false;  // SDOT
  bool neon_i8mm = false;     // SDOT and SMMLA
};

#ifdef GEMTP_X86
struct Cpuid {
  uint32_t eax, ebx, ecx, edx;
};

Cpuid cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Cpuid r{};
#if defined(_MSC_VER)
  int words[4];
  __cpuidex(words, static_cast<int>(leaf), static_cast<int>(subleaf));
  r = {static_cast<uint32_t>(words[0]), static_cast<uint32_t>(words[1]),
       static_cast<uint32_t>(words[2]), static_cast<uint32_t>(words[3])};
#else
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
#endif
  return r;
}

// Returns XCR0: the register state that the operating system saves between threads.
uint64_t saved_state() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
#endif
}

CpuFeatures detect() {
  CpuFeatures f;
  const auto bit = [](uint32_t word, int at) { return ((word >> at) & 1) != 0; };
  if (cpuid(0).eax < 7) return f;
  const Cpuid one = cpuid(1);
  if (!bit(one.ecx, 27)) return f;  // OSXSAVE: xgetbv exists
  const uint64_t state = saved_state();
  const bool ymm = (state & 0x06) == 0x06;  // xmm, ymm
  const bool zmm = (state & 0xe6) == 0xe6;  // and the mask and zmm registers
  const Cpuid seven = cpuid(7);
  f.avx2 = ymm && bit(one.ecx, 28) && bit(one.ecx, 12) && bit(one.ecx, 29) &&  // AVX, FMA, F16C
           bit(seven.ebx, 5);
  f.avxvnni = f.avx2 && seven.eax >= 1 && bit(cpuid(7, 1).eax, 4);
  f.avx512 = f.avx2 && zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) &&  // F, DQ
             bit(seven.ebx, 30) && bit(seven.ebx, 31);                     // BW, VL
  f.avx512vnni = f.avx512 && bit(seven.ecx, 11);
  return f;
}
#elif defined(GEMTP_ARM64)
#if defined(__linux__)
CpuFeatures detect() {
  constexpr unsigned long kDotprod = 1ul << 20, kI8mm = 1ul << 13;  // of the kernel's asm/hwcap.h
  CpuFeatures f;
  f.neon_dotprod = (getauxval(AT_HWCAP) & kDotprod) != 0;
  f.neon_i8mm = f.neon_dotprod && (getauxval(AT_HWCAP2) & kI8mm) != 0;
  return f;
}
#elif defined(__APPLE__)
CpuFeatures detect() {
  const auto has = [](const char* feature) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
  };
  CpuFeatures f;
  f.neon_dotprod = has("hw.optional.arm.FEAT_DotProd");
  f.neon_i8mm = f.neon_dotprod && has("hw.optional.arm.FEAT_I8MM");
  return f;
}
#elif defined(_WIN32)
CpuFeatures detect() {
  constexpr DWORD kDotprod = 43, kI8mm = 66;  // PF_ARM_V82_..., the second in newer headers only
  CpuFeatures f;
  f.neon_dotprod = IsProcessorFeaturePresent(kDotprod) != 0;
  f.neon_i8mm = f.neon_dotprod && IsProcessorFeaturePresent(kI8mm) != 0;
  return f;
}
#else
CpuFeatures detect() { return {}; }
#endif
#else
CpuFeatures detect() { return {}; }
#endif

// The names of the tables of all builds of this version, best first within an architecture.
constexpr const char* kKnownNames[] = {"avx512vnni", "avx512",       "avxvnni", "avx2",
                                       "neon_i8mm",  "neon_dotprod", "neon",    "scalar"};

template <class Range, class NameOf>
std::string join(const Range& range, NameOf name_of) {
  std::string text;
  for (const auto& item : range) text += (text.empty() ? "" : ", ") + std::string(name_of(item));
  return text;
}

}  // namespace

std::vector<const gemtp_kernels*> runnable_kernels() {
  static const CpuFeatures cpu = detect();
  std::vector<const gemtp_kernels*> tables;
#ifdef GEMTP_HAVE_AVX512
  if (cpu.avx512vnni) tables.push_back(&gemtp_kernels_avx512vnni);
  if (cpu.avx512) tables.push_back(&gemtp_kernels_avx512);
#endif
#ifdef GEMTP_HAVE_AVX2
  if (cpu.avxvnni) tables.push_back(&gemtp_kernels_avxvnni);
  if (cpu.avx2) tables.push_back(&gemtp_kernels_avx2);
#endif
#ifdef GEMTP_HAVE_NEON
  if (cpu.neon_i8mm) tables.push_back(&gemtp_kernels_neon_i8mm);
  if (cpu.neon_dotprod) tables.push_back(&gemtp_kernels_neon_dotprod);
  tables.push_back(&gemtp_kernels_neon);
#endif
  (void)cpu;
  tables.push_back(&gemtp_kernels_scalar);
  return tables;
}

const gemtp_kernels& select_kernels(const std::string& isa) {
  const auto tables = runnable_kernels();
  std::string name = isa, origin = "instruction set";
  if (name.empty()) {
    if (const char* value = std::getenv("GEMTP_ISA")) {
      name = value;
      origin = "instruction set of GEMTP_ISA";
    }
  }
  if (name.empty()) return *tables.front();
  for (const gemtp_kernels* table : tables)
    if (name == table->name) return *table;
  for (const char* known : kKnownNames)
    if (name == known)
      throw Error(
          ErrorKind::kArgument,
          format("the %s '%s' cannot run on this machine; runnable here: %s", origin.c_str(), known,
                 join(tables, [](auto* t) { return t->name; }).c_str()));
  throw Error(ErrorKind::kArgument,
              format("the %s %s is unknown; known: %s", origin.c_str(), quoted(name).c_str(),
                     join(kKnownNames, [](const char* n) { return n; }).c_str()));
}

}  // namespace gemtp
