// Gumbel(0, 1) noise from a counter-based random generator: a function of (seed, position, token
// id) with no state, and cheap bounds on it for scans that need only the largest sum of logit and
// noise.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "base/numeric.h"

namespace gemtp {

/// The noise of one (seed, position). A token's 64 random bits come from two hashes. The upper 16
/// bits are a quarter of the hash of its group of four neighbouring ids, so a scan that only checks
/// whether they are large enough hashes once per four tokens; the other bits are the token's own
/// hash.
class GumbelNoise {
 public:
  GumbelNoise(uint64_t seed, int64_t position) {
    const uint64_t p = static_cast<uint64_t>(position);
    const uint64_t s = mix(seed + kGolden);
    group_key_ = {mix(s + p * kGolden), mix(std::rotl(s, 32) ^ mix(p + 2 * kGolden))};
    token_key_ = {mix(group_key_.start + 3 * kGolden), mix(group_key_.middle + 5 * kGolden)};
  }

  /// The upper 16 bits of the tokens 4g to 4g + 3, lowest bits first.
  uint64_t group(int64_t g) const { return hash(group_key_, static_cast<uint64_t>(g)); }

  uint32_t upper(int32_t token) const {
    return static_cast<uint32_t>(group(token >> 2) >> (16 * (token & 3))) & 0xffff;
  }

  uint64_t bits(int32_t token, uint32_t upper) const {
    return static_cast<uint64_t>(upper) << 48 |
           hash(token_key_, static_cast<uint64_t>(token)) >> 16;
  }

  /// Returns -log(-log u) with u = (upper 52 bits + 1/2) / 2^52, which is exact in double and never
  /// 0 or 1.
  static double gumbel(uint64_t bits) {
    const double u = (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
    return -portable_log(-portable_log(u));
  }

  // gumbel(bits) <= -log(1 - u), and 1 - u > 2^-(ones + 1) with `ones` the leading one bits. The
  // number of leading ones thus bounds the noise without a logarithm.
  static constexpr double kLn2Up = 0.69314718056;  // ln 2 rounded up

  static double upper_bound(uint64_t bits) {
    return (std::min(std::countl_one(bits), 52) + 1) * kLn2Up;
  }

  static constexpr uint64_t kLanes = 0x0001000100010001u;  // 1 in each of a group's four lanes

  /// Whether a token of the group has all `needed` upper bits.
  static bool any_has(uint64_t group, uint32_t needed) {
    const uint64_t missing = ~group & needed * kLanes;  // a lane that is 0 has all of them
    return ((missing - kLanes) & ~missing & (kLanes << 15)) != 0;
  }

  /// Noise of `gap` or more needs all these bits in upper(): the leading min(16, gap / ln 2 - 1).
  static uint32_t needed(double gap) {
    const double ones = std::min(std::ceil(gap / kLn2Up) - 1, 16.0);
    return ones > 0 ? 0xffffu & ~(0xffffu >> static_cast<int>(ones)) : 0;
  }

 private:
  struct Key {
    uint64_t start, middle;
  };

  static constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio, odd
  static constexpr uint64_t kMix1 = 0xbf58476d1ce4e5b9u, kMix2 = 0x94d049bb133111ebu;

  /// The finalizer of SplitMix64 (Stafford's variant 13 of that of MurmurHash3): a bijection in
  /// which every input bit flips every output bit with probability close to one half.
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * kMix1;
    z = (z ^ (z >> 27)) * kMix2;
    return z ^ (z >> 31);
  }

  /// SplitMix64's walk and finalizer with a second key in the middle, so that two streams are
  /// related only if all 128 key bits are.
  static uint64_t hash(const Key& key, uint64_t counter) {
    uint64_t z = key.start + counter * kGolden;
    z = (z ^ (z >> 30)) * kMix1;
    z = (z ^ (z >> 27) ^ key.middle) * kMix2;
    return z ^ (z >> 31);
  }

  Key group_key_, token_key_;
};

}  // namespace gemtp
