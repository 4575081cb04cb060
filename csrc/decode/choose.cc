#include "decode/choose.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/numeric.h"
#include "decode/gumbel.h"

namespace gemtp {

// -log(-log u) for the smallest and the largest u below, 2^-53 and 1 - 2^-53.
const double kGumbelMin = -3.6037789929704575;
const double kGumbelMax = 36.7368005696771;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// Every scan goes block by block and skips what the largest logit of a block rules out.
constexpr int64_t kBlock = 256;

// Weights of top-p: probability relative to the largest, in units of 2^-42. Sums of up to 2^21 of
// them fit 63 bits, and rounding misplaces at most 2^-22 of the mass.
constexpr double kWeightOne = 0x1p42;
constexpr int32_t kMaxVocab = 1 << 21;
// e^-30 2^42 < 0.5: a token that far (in logit / temperature) below the largest weighs nothing.
constexpr double kWeightlessGap = 30.0;

/// Rounds 0 <= x <= 2^42 to the nearest integer.
uint64_t rounded(double x) {
  constexpr double kRound = 0x1p52;
  return std::bit_cast<uint64_t>(x + kRound) - std::bit_cast<uint64_t>(kRound);
}

struct BlockSummary {
  float max;
  bool damaged;  // holds a NaN or +infinity
};

BlockSummary summarize(const float* x, int64_t n) {
  // Comparisons as maxps takes them (a NaN is passed over), in four chains to hide its latency.
  float a = -kInfinity, b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    a = x[i] > a ? x[i] : a;
    b = x[i + 1] > b ? x[i + 1] : b;
    c = x[i + 2] > c ? x[i + 2] : c;
    d = x[i + 3] > d ? x[i + 3] : d;
  }
  for (; i < n; ++i) a = x[i] > a ? x[i] : a;
  int damaged = 0;
  for (i = 0; i < n; ++i) damaged |= !(x[i] <= kLargest);
  return {std::max(std::max(a, b), std::max(c, d)), damaged != 0};
}

/// The sum of e^((x[i] - max) * scale) over i < n <= kBlock, for x[i] <= max, with a relative error
/// below kRoughError: float's rounding of the exponent (up to 30, so 5e-6), a polynomial of degree
/// 5 (3e-6) and float sums.
constexpr double kRoughError = 2e-5;
float rough_exp_sum(const float* x, int64_t n, float max, float scale) {
  constexpr float kRound = 0x1.8p23f;
  constexpr int kLanes = 8;
  float sums[kLanes] = {};
  float e[kBlock];
  for (int64_t i = 0; i < n; ++i) {
    const float y = (x[i] - max) * scale;
    e[i] = y > -40.0f ? y : -40.0f;  // below, it weighs nothing
  }
  for (int64_t i = 0; i < n; ++i) {
    const float y = e[i];
    const float shifted = y * 1.44269504f + kRound;
    const float whole = shifted - kRound;
    const float r = (y - whole * 0.693359375f) - whole * -2.12194440e-4f;  // ln 2 in two parts
    float p = 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    e[i] = p * std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) + 127) << 23);
  }
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += e[i + lane];
  }
  for (; i < n; ++i) sums[0] += e[i];
  for (int lane = 1; lane < kLanes; ++lane) sums[0] += sums[lane];
  return sums[0];
}

/// A double as a logit: never +infinity, which only damaged weights give.
float to_logit(double x) {
  if (x > kLargest) return kLargest;
  return x < -kLargest ? -kInfinity : static_cast<float>(x);
}

}  // namespace

void validate(const SamplingParams& params, int32_t vocab_size) {
  const auto require = [](bool ok, const char* name, double value, const char* domain) {
    if (!ok) {
      throw Error(ErrorKind::kArgument, format("%s is %g but must be %s", name, value, domain));
    }
  };
  const auto finite = [](float x) { return x >= -kLargest && x <= kLargest; };
  const SamplingParams& p = params;
  require(p.temperature >= 0 && finite(p.temperature), "temperature", p.temperature,
          "0 (greedy) or a finite number above 0");
  require(p.top_k >= 0, "top_k", p.top_k, "0 (off) or above");
  require(p.top_p > 0 && p.top_p <= 1, "top_p", p.top_p, "above 0 and at most 1 (off)");
  require(p.min_p >= 0 && p.min_p < 1, "min_p", p.min_p, "at least 0 (off) and below 1");
  require(p.repetition_penalty > 0 && finite(p.repetition_penalty), "repetition_penalty",
          p.repetition_penalty, "a finite number above 0 (1: off)");
  require(finite(p.presence_penalty), "presence_penalty", p.presence_penalty, "finite (0: off)");
  require(finite(p.frequency_penalty), "frequency_penalty", p.frequency_penalty, "finite (0: off)");
  require(p.penalty_last_n >= -1, "penalty_last_n", p.penalty_last_n,
          "-1 (all tokens), 0 (none) or above");
  for (const auto& [id, bias] : p.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorKind::kArgument,
                  format("logit_bias names token %d but the vocabulary has the ids 0 to %d", id,
                         vocab_size - 1));
    }
    if (!finite(bias) && bias != -kInfinity) {
      throw Error(
          ErrorKind::kArgument,
          format("logit_bias of token %d is %g but must be finite, or -inf to ban the token", id,
                 static_cast<double>(bias)));
    }
  }
}

void TokenHistory::count(int32_t id) { ++counts_[id]; }

void TokenHistory::uncount(int32_t id) {
  const auto it = counts_.find(id);
  GEMTP_ASSERT(it != counts_.end());
  if (--it->second == 0) counts_.erase(it);
}

void TokenHistory::push(int32_t id) {
  tokens_.push_back(id);
  count(id);
  if (last_n_ >= 0 && size() > last_n_) uncount(tokens_[tokens_.size() - 1 - last_n_]);
}

void TokenHistory::pop() {
  GEMTP_ASSERT(!tokens_.empty());
  if (last_n_ >= 0 && size() > last_n_) count(tokens_[tokens_.size() - 1 - last_n_]);
  uncount(tokens_.back());
  tokens_.pop_back();
}

double gumbel_noise(uint64_t seed, int64_t position, int32_t token) {
  const GumbelNoise noise(seed, position);
  return GumbelNoise::gumbel(noise.bits(token, noise.upper(token)));
}

namespace {

/// The best score so far, equal scores to the smaller id.
class Best {
 public:
  double score() const { return score_; }
  int32_t id() const { return id_; }

  /// Offers logit / temperature `x` plus the noise of `bits`, computing it only if it can win.
  void offer(double x, uint64_t bits, int32_t id) {
    if (x + GumbelNoise::upper_bound(bits) < score_) return;
    const double score = x + GumbelNoise::gumbel(bits);
    if (score > score_ || (score == score_ && id < id_)) {
      score_ = score;
      id_ = id;
    }
  }

 private:
  double score_ = -std::numeric_limits<double>::infinity();
  int32_t id_ = std::numeric_limits<int32_t>::max();
};

constexpr auto kBetter = [](const auto& a, const auto& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
};

}  // namespace

Chooser::Chooser(SamplingParams params, const std::vector<int32_t>& suppressed, int32_t vocab_size)
    : params_(std::move(params)), suppressed_(suppressed) {
  if (vocab_size < 1 || vocab_size > kMaxVocab) {
    throw Error(ErrorKind::kModel, format("the vocabulary has %d tokens but 1 to %d are supported",
                                          vocab_size, kMaxVocab));
  }
  validate(params_, vocab_size);
}

int64_t Chooser::View::find(int32_t id) const {
  if (!ids) return id >= 0 && id < n ? id : -1;
  const int32_t* end = ids + n;
  const int32_t* it = std::lower_bound(ids, end, id);
  return it != end && *it == id ? it - ids : -1;
}

int32_t Chooser::choose(const float* logits, const int32_t* ids, int64_t n, int64_t position,
                        const TokenHistory& history) {
  GEMTP_ASSERT(n > 0 && n <= kMaxVocab);
  View view{logits, ids, n, -kInfinity};
  block_max_.resize((n + kBlock - 1) / kBlock);
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const BlockSummary block = summarize(logits + begin, std::min(kBlock, n - begin));
    if (block.damaged) {
      const float* bad =
          std::find_if_not(logits + begin, logits + n, [](float x) { return x <= kLargest; });
      throw Error(ErrorKind::kModel,
                  format("the logit of token %d at position %lld is %g: the weights are damaged or "
                         "not the ones this model needs",
                         view.id(bad - logits), static_cast<long long>(position),
                         static_cast<double>(*bad)));
    }
    block_max_[begin / kBlock] = block.max;
  }
  view.max = *std::max_element(block_max_.begin(), block_max_.end());
  if (view.max == -kInfinity) {
    throw Error(ErrorKind::kModel,
                format("no logit at position %lld is finite: the weights are damaged or not the "
                       "ones this model needs",
                       static_cast<long long>(position)));
  }
  if (params_.penalises() || !params_.logit_bias.empty() || !suppressed_.empty()) {
    adjust(&view, history);
  }

  if (params_.temperature == 0) {
    const int64_t block =
        std::find(block_max_.begin(), block_max_.end(), view.max) - block_max_.begin();
    const float* begin = view.logits + block * kBlock;
    return view.id(std::find(begin, view.logits + n, view.max) - view.logits);
  }

  const GumbelNoise noise(params_.seed, position);
  const double lowest = params_.min_p > 0
                            ? scaled(view.max) + portable_log(static_cast<double>(params_.min_p))
                            : -std::numeric_limits<double>::infinity();
  const bool top_k = params_.top_k > 0 && params_.top_k < n;
  if (!top_k && params_.top_p == 1) return sample_all(view, noise, lowest);
  candidates_.clear();
  if (top_k) keep_top_k(view);
  if (params_.top_p < 1) keep_top_p(view);
  return sample_candidates(noise, lowest);
}

/// Suppression, penalties and bias, into a copy; each token's arithmetic in double, rounded once.
void Chooser::adjust(View* view, const TokenHistory& history) {
  work_.assign(view->logits, view->logits + view->n);
  view->logits = work_.data();
  touched_.clear();
  const auto change = [&](int32_t id, auto&& function) {
    const int64_t i = view->find(id);
    if (i < 0 || work_[i] == -kInfinity) return;
    work_[i] = to_logit(function(static_cast<double>(work_[i])));
    touched_.push_back(i / kBlock);
  };
  for (const int32_t id : suppressed_) {
    change(id, [](double) { return -std::numeric_limits<double>::infinity(); });
  }
  if (params_.penalises()) {
    const double repetition = params_.repetition_penalty, presence = params_.presence_penalty,
                 frequency = params_.frequency_penalty;
    for (const auto& [id, count] : history.counts()) {
      const double times = count;
      change(id, [&](double x) {
        const double repeated = x > 0 ? x / repetition : x * repetition;
        return repeated - presence - frequency * times;
      });
    }
  }
  for (const auto& [id, bias] : params_.logit_bias) {
    const double added = bias;
    change(id, [&](double x) { return x + added; });
  }

  std::sort(touched_.begin(), touched_.end());
  touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
  for (const int64_t block : touched_) {
    const int64_t begin = block * kBlock;
    block_max_[block] = summarize(work_.data() + begin, std::min(kBlock, view->n - begin)).max;
  }
  view->max = *std::max_element(block_max_.begin(), block_max_.end());
  if (view->max == -kInfinity) {
    throw Error(ErrorKind::kArgument,
                "every token is banned by logit_bias, penalties and the model's suppressed tokens: "
                "leave at least one");
  }
}

/// Appends every token whose logit is at least `lowest`, and finite.
void Chooser::collect(const View& view, float lowest) {
  lowest = std::max(lowest, -kLargest);
  for (size_t block = 0; block < block_max_.size(); ++block) {
    if (block_max_[block] < lowest) continue;
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    const int64_t end = std::min(begin + kBlock, view.n);
    for (int64_t i = begin; i < end; ++i) {
      if (view.logits[i] >= lowest) candidates_.push_back({view.logits[i], view.id(i), 0});
    }
  }
}

void Chooser::keep_top_k(const View& view) {
  const size_t k = static_cast<size_t>(params_.top_k);
  // k blocks have a token as large as the k-th largest block maximum, so no smaller one is kept.
  float lowest = -kInfinity;
  if (k <= block_max_.size()) {
    ranking_ = block_max_;
    std::nth_element(ranking_.begin(), ranking_.begin() + (k - 1), ranking_.end(),
                     std::greater<float>());
    lowest = ranking_[k - 1];
  }
  collect(view, lowest);
  if (candidates_.size() > k) {
    std::nth_element(candidates_.begin(), candidates_.begin() + (k - 1), candidates_.end(),
                     kBetter);
    candidates_.resize(k);
  }
}

uint64_t Chooser::weight(const View& view, float logit) const {
  const double per_temperature = 1.0 / static_cast<double>(params_.temperature);
  const double below = static_cast<double>(logit) - static_cast<double>(view.max);
  return rounded(portable_exp(below * per_temperature) * kWeightOne);
}

/// The sum of weight() over all tokens.
uint64_t Chooser::total_weight(const View& view) const {
  const double max = view.max, per_temperature = 1.0 / static_cast<double>(params_.temperature);
  uint64_t total = 0;
  double x[kBlock];
  for (size_t block = 0; block < block_max_.size(); ++block) {
    if ((block_max_[block] - max) * per_temperature < -kWeightlessGap) continue;
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    const int64_t count = std::min(kBlock, view.n - begin);
    for (int64_t i = 0; i < count; ++i) {
      x[i] = (static_cast<double>(view.logits[begin + i]) - max) * per_temperature;
    }
    portable_exp(x, count);
    for (int64_t i = 0; i < count; ++i) total += rounded(x[i] * kWeightOne);
  }
  return total;
}

/// An interval that contains total_weight(), in a fraction of its time.
Chooser::Interval Chooser::estimate_total_weight(const View& view) const {
  const float max = view.max, per_temperature = 1.0f / params_.temperature;
  if (!(per_temperature >= 1e-30f && per_temperature <= 1e30f)) {  // float's range would not do
    const uint64_t total = total_weight(view);
    return {total, total};
  }
  double total = 0;
  for (size_t block = 0; block < block_max_.size(); ++block) {
    if ((block_max_[block] - max) * per_temperature < -static_cast<float>(kWeightlessGap)) continue;
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    total +=
        rough_exp_sum(view.logits + begin, std::min(kBlock, view.n - begin), max, per_temperature);
  }
  total *= kWeightOne;
  // Each of n weights is rounded to an integer, or left out where it would be 0.
  const double slack = kRoughError * total + static_cast<double>(view.n);
  return {static_cast<uint64_t>(std::max(total - slack, 1.0)),
          static_cast<uint64_t>(total + slack)};
}

/// After top-k on its candidates, otherwise on all tokens.
void Chooser::keep_top_p(const View& view) {
  const auto weigh_candidates = [&] {
    uint64_t sum = 0;
    for (Candidate& c : candidates_) sum += c.weight = weight(view, c.logit);
    return sum;
  };
  // The weight the nucleus must reach, of all weights' total; grows with it.
  const auto mass = [&](uint64_t total) {
    return static_cast<uint64_t>(
        std::ceil(static_cast<double>(params_.top_p) * static_cast<double>(total)));
  };
  if (!candidates_.empty()) {
    candidates_.resize(nucleus_size(mass(weigh_candidates())));
    return;
  }
  // Sorting all tokens is not needed: those within some distance of the largest logit are a prefix
  // of the sorted order, and one that holds enough mass contains the nucleus.
  const Interval total = estimate_total_weight(view);
  for (double gap = 4;; gap *= 2) {
    candidates_.clear();
    collect(view, to_logit(static_cast<double>(view.max) - gap * params_.temperature));
    const uint64_t sum = weigh_candidates();
    if (sum >= mass(total.high)) break;
    if (gap > kWeightlessGap) {  // the others weigh nothing
      candidates_.resize(nucleus_size(mass(sum)));
      return;
    }
  }
  // Mostly the nucleus is the same for every total in the interval.
  size_t size = nucleus_size(mass(total.low));
  uint64_t sum = 0;
  for (size_t i = 0; i < size; ++i) sum += candidates_[i].weight;
  if (sum < mass(total.high)) size = nucleus_size(mass(total_weight(view)));
  candidates_.resize(size);
}

/// Moves the shortest prefix of the candidates, in sorted order, whose weights reach `mass` to the
/// front and returns its length; in linear time, because a nucleus may be most of the vocabulary.
size_t Chooser::nucleus_size(uint64_t mass) {
  const auto begin = candidates_.begin();
  auto low = begin, high = candidates_.end();  // [begin, low) is in, [high, end) is out
  if (high - low > 4096) {
    // A histogram over the range of logits tells in which narrow slice the nucleus ends.
    const auto [least, most] = std::minmax_element(
        low, high, [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; });
    constexpr int kSlices = 1024;
    const double top = most->logit, range = top - least->logit;
    const double slices_per_unit = range > 0 ? (kSlices - 1) / range : 0;
    const auto slice = [=](const Candidate& c) {
      return static_cast<int>((top - c.logit) * slices_per_unit);
    };
    uint64_t weights[kSlices] = {};
    for (auto it = low; it != high; ++it) weights[slice(*it)] += it->weight;
    int last = 0;
    while (last < kSlices - 1 && weights[last] < mass) mass -= weights[last++];
    low = std::partition(low, high, [&](const Candidate& c) { return slice(c) < last; });
    high = std::partition(low, high, [&](const Candidate& c) { return slice(c) == last; });
  }
  while (high - low > 1) {
    const auto middle = low + (high - low) / 2;
    std::nth_element(low, middle, high, kBetter);
    uint64_t sum = 0;
    for (auto it = low; it != middle; ++it) sum += it->weight;
    if (sum >= mass) {
      high = middle;
    } else {
      mass -= sum;
      low = middle;
    }
  }
  return static_cast<size_t>(high - begin);
}

int32_t Chooser::sample_all(const View& view, const GumbelNoise& noise, double lowest) const {
  // The block of the largest logit first, so that the score to beat is high from the start.
  const size_t first =
      std::find(block_max_.begin(), block_max_.end(), view.max) - block_max_.begin();
  const float* largest = std::find(view.logits + first * kBlock, view.logits + view.n, view.max);
  const int32_t largest_id = view.id(largest - view.logits);
  Best best;
  best.offer(scaled(view.max), noise.bits(largest_id, noise.upper(largest_id)), largest_id);

  const auto visit = [&](size_t block) {
    const double max = scaled(block_max_[block]);
    if (max < lowest || max + kGumbelMax < best.score()) return;
    // The rounding of the two sums is far below this slack.
    const double slack = 1e-9 + 1e-15 * (std::fabs(best.score()) + std::fabs(max));
    const uint32_t needed = GumbelNoise::needed(best.score() - max - slack);
    const auto consider = [&](int64_t i, uint32_t upper) {
      if (needed & ~upper) return;
      const double x = scaled(view.logits[i]);
      const int32_t id = view.id(i);
      if (x >= lowest) best.offer(x, noise.bits(id, upper), id);
    };
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    const int64_t end = std::min(begin + kBlock, view.n);
    if (view.ids) {
      for (int64_t i = begin; i < end; ++i) consider(i, noise.upper(view.ids[i]));
      return;
    }
    static_assert(kBlock == 4 * 64);
    uint64_t hits = 0;  // of the block's 64 groups, those where some token may win
    const int64_t groups = (end - begin + 3) / 4;
    for (int64_t g = 0; g < groups; ++g) {
      hits |= uint64_t{GumbelNoise::any_has(noise.group(begin / 4 + g), needed)} << g;
    }
    for (; hits; hits &= hits - 1) {
      const int64_t i = begin + 4 * std::countr_zero(hits);
      uint64_t group = noise.group(i / 4);
      for (int64_t j = i; j < std::min(i + 4, end); ++j, group >>= 16) {
        consider(j, static_cast<uint32_t>(group) & 0xffff);
      }
    }
  };
  visit(first);
  for (size_t block = 0; block < block_max_.size(); ++block) {
    if (block != first) visit(block);
  }
  return best.id();
}

int32_t Chooser::sample_candidates(const GumbelNoise& noise, double lowest) const {
  Best best;
  for (const Candidate& c : candidates_) {
    const double x = scaled(c.logit);
    if (x >= lowest) best.offer(x, noise.bits(c.id, noise.upper(c.id)), c.id);
  }
  return best.id();
}

}  // namespace gemtp
