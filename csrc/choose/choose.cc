#include "choose/choose.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/largest.h"
#include "base/numeric.h"
#include "choose/gumbel.h"

namespace gemtp {

// -log(-log u) for the smallest and the largest u below, 2^-53 and 1 - 2^-53.
const double kGumbelMin = -3.6037789929704575;
const double kGumbelMax = 36.7368005696771;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// Every scan goes block by block and skips blocks whose largest logit rules them out.
constexpr int64_t kBlock = 256;

// Weight of probability 1 in top-p: weights are probabilities relative to the largest, in units of
// 2^-42. Sums of up to 2^21 weights fit 63 bits, and rounding misplaces at most 2^-22 of the mass.
constexpr double kWeightOne = 0x1p42;
constexpr int32_t kMaxVocab = 1 << 21;
// A token this far below the largest (in logit / temperature) has weight 0, because e^-30 2^42 <
// 0.5.
constexpr double kWeightlessGap = 30.0;

/// Rounds 0 <= x <= 2^42 to the nearest integer.
uint64_t rounded(double x) {
  constexpr double kRound = 0x1p52;
  return std::bit_cast<uint64_t>(x + kRound) - std::bit_cast<uint64_t>(kRound);
}

/// Returns the sum of e^((x[i] - max) * scale) over i < n <= kBlock, for x[i] <= max, with a
/// relative error below kRoughError: rounding of the exponent in float (up to 30, so 5e-6), a
/// polynomial of degree 5 (3e-6) and sums in float.
constexpr double kRoughError = 2e-5;
float rough_exp_sum(const float* x, int64_t n, float max, float scale) {
  constexpr float kRound = 0x1.8p23f;
  constexpr int kLanes = 8;
  float sums[kLanes] = {};
  float e[kBlock];
  for (int64_t i = 0; i < n; ++i) {
    const float y = (x[i] - max) * scale;
    e[i] = y > -40.0f ? y : -40.0f;  // below -40 the weight is 0
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

/// Converts a double to a logit. Never returns +infinity, which would count as damaged weights, and
/// flushes small values like the model's logits, so that the result is the same on processors
/// without subnormal numbers.
float to_logit(double x) {
  if (x > kLargest) return kLargest;
  if (std::fabs(x) < 0x1p-40) return 0.0f;
  return x < -kLargest ? -kInfinity : static_cast<float>(x);
}

}  // namespace

double gumbel_noise(uint64_t seed, int64_t position, int32_t token) {
  const GumbelNoise noise(seed, position);
  return GumbelNoise::gumbel(noise.bits(token, noise.upper(token)));
}

namespace {

/// The best score so far; of equal scores the smaller id wins.
class Best {
 public:
  double score() const { return score_; }
  int32_t id() const { return id_; }

  /// Offers the score x + noise(bits), where x is logit / temperature; computes the noise only if
  /// the score can win.
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
  if (params_.top_p == 0) params_.top_k = 1;  // a nucleus has at least one token
  if (params_.temperature < std::numeric_limits<float>::min()) params_.temperature = 0;
  suppressed_.insert(suppressed_.end(), params_.suppress_tokens.begin(),
                     params_.suppress_tokens.end());
}

int64_t Chooser::View::find(int32_t id) const {
  if (!ids) return id >= 0 && id < n ? id : -1;
  const int32_t* end = ids + n;
  const int32_t* it = std::lower_bound(ids, end, id);
  return it != end && *it == id ? it - ids : -1;
}

bool Chooser::changes_logits() const {
  return params_.penalises() || !params_.logit_bias.empty() || !suppressed_.empty();
}

bool Chooser::takes_largest() const {
  return params_.temperature == 0 && !changes_logits() && !processor_;
}

int32_t Chooser::choose_largest(int32_t id, float logit, int64_t position) const {
  const auto at = static_cast<long long>(position);
  if (damaged_logit(logit)) {
    throw Error(ErrorKind::kModel,
                format("the logit of token %d at position %lld is %g: the weights are damaged or "
                       "not the ones this model needs",
                       id, at, static_cast<double>(logit)));
  }
  if (logit == -kInfinity) {
    throw Error(ErrorKind::kModel,
                format("no logit at position %lld is finite: the weights are damaged or not the "
                       "ones this model needs",
                       at));
  }
  return id;
}

double Chooser::probability(const float* all_logits, const int32_t* all_ids, int64_t all,
                            int32_t token, const TokenHistory& history) {
  View view{all_logits, all_ids, all, 0};
  if (ConstrainedText* text = history.constraint()) restrict(&view, text->mask());
  const int64_t at = view.find(token), n = view.n;
  if (at < 0) return 0;
  const float* logits = view.logits;
  float max = -kInfinity;
  for (int64_t begin = 0; begin < n; begin += kBlock)
    max = std::max(max, largest(logits + begin, std::min(kBlock, n - begin)).value);
  const float scale = params_.temperature > 0 ? 1 / params_.temperature : 1.0f;
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock)
    sum += rough_exp_sum(logits + begin, std::min(kBlock, n - begin), max, scale);
  return rough_exp_sum(logits + at, 1, max, scale) / sum;
}

/// Keeps only the tokens of the mask: few tokens are gathered, many stay in place.
void Chooser::restrict(View* view, const uint32_t* mask) {
  constexpr int64_t kWord = 32;
  const float* x = view->logits;
  int64_t left = 0;
  if (view->ids) {
    for (int64_t i = 0; i < view->n; ++i) left += in_mask(mask, view->ids[i]);
  } else {
    for (int64_t w = 0; w < (view->n + kWord - 1) / kWord; ++w) left += std::popcount(mask[w]);
  }
  if (!view->ids && left > view->n / 8) {
    work_.resize(static_cast<size_t>(view->n));
    for (int64_t i = 0; i < view->n; i += kWord) {
      const uint32_t word = mask[i / kWord];
      const int64_t count = std::min(kWord, view->n - i);
      for (int64_t j = 0; j < count; ++j)
        work_[static_cast<size_t>(i + j)] = word >> j & 1 ? x[i + j] : -kInfinity;
    }
    view->logits = work_.data();
    return;
  }
  work_.resize(static_cast<size_t>(left));
  work_ids_.resize(static_cast<size_t>(left));
  size_t at = 0;
  const auto take = [&](int32_t id, float logit) {
    work_ids_[at] = id;
    work_[at++] = logit;
  };
  if (view->ids) {
    for (int64_t i = 0; i < view->n; ++i)
      if (in_mask(mask, view->ids[i])) take(view->ids[i], x[i]);
  } else {
    for (int64_t i = 0; i < view->n; i += kWord)
      for (uint32_t word = mask[i / kWord]; word; word &= word - 1) {
        const auto id = static_cast<int32_t>(i + std::countr_zero(word));
        take(id, x[id]);
      }
  }
  *view = {work_.data(), work_ids_.data(), left, view->max};
}

int32_t Chooser::choose(const float* all_logits, const int32_t* all_ids, int64_t all,
                        int64_t position, const TokenHistory& history) {
  GEMTP_ASSERT(all > 0 && all <= kMaxVocab);
  View view{all_logits, all_ids, all, -kInfinity};
  if (ConstrainedText* text = history.constraint()) {
    restrict(&view, text->mask());
    if (view.n == 0)
      throw Error(ErrorKind::kArgument,
                  format("the grammar lets no token of the vocabulary come at position %lld: it "
                         "asks for characters that no token can begin",
                         static_cast<long long>(position)));
  }
  const float* logits = view.logits;
  const int64_t n = view.n;
  block_max_.resize((n + kBlock - 1) / kBlock);
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const Largest block = largest(logits + begin, std::min(kBlock, n - begin));
    if (block.damaged) {
      const float* bad = std::find_if(logits + begin, logits + n, damaged_logit);
      return choose_largest(view.id(bad - logits), *bad, position);  // throws
    }
    block_max_[begin / kBlock] = block.value;
  }
  const auto top = std::max_element(block_max_.begin(), block_max_.end());
  view.max = *top;
  if (history.constraint() && view.max == -kInfinity)
    throw Error(ErrorKind::kArgument,
                format("of the tokens that the grammar lets come at position %lld every one has a "
                       "logit of -infinity",
                       static_cast<long long>(position)));
  const float* first = logits + (top - block_max_.begin()) * kBlock;
  const int32_t best =
      choose_largest(view.id(std::find(first, logits + n, view.max) - logits), view.max, position);
  if (takes_largest()) return best;
  if (changes_logits()) adjust(&view, history);

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
  const bool top_k = params_.top_k > 0 && params_.top_k < n, top_p = params_.top_p < 1;
  if (top_k) {
    keep_top_k(view);
    if (top_p) candidates_.resize(nucleus_size(nucleus_mass(weigh_candidates(view))));
    return sample_candidates(noise, lowest);
  }
  if (top_p && keep_small_nucleus(view)) return sample_candidates(noise, lowest);
  const Candidate everything{-kInfinity, std::numeric_limits<int32_t>::max(), 0};
  return sample_all(view, noise, lowest, top_p ? end_of_nucleus(view) : everything);
}

int32_t Chooser::choose_target(const float* logits, int64_t n, int64_t position,
                               const TokenHistory& history) {
  if (!processor_) return choose(logits, nullptr, n, position, history);
  processed_.assign(logits, logits + n);
  processor_(history.tokens(), processed_.data(), n);
  const Largest all = largest(processed_.data(), n);
  if (all.damaged) {
    const auto bad = std::find_if(processed_.begin(), processed_.end(), damaged_logit);
    throw Error(ErrorKind::kArgument,
                format("the logits processor gave %g for token %lld at position %lld; a logit must "
                       "be a finite number, or -inf to ban the token",
                       static_cast<double>(*bad), static_cast<long long>(bad - processed_.begin()),
                       static_cast<long long>(position)));
  }
  if (all.value == -kInfinity) {
    throw Error(ErrorKind::kArgument, format("the logits processor banned every token at position "
                                             "%lld: leave at least one",
                                             static_cast<long long>(position)));
  }
  return choose(processed_.data(), nullptr, n, position, history);
}

/// Applies suppression, penalties and bias to a copy; the arithmetic of each token is in double,
/// rounded once.
void Chooser::adjust(View* view, const TokenHistory& history) {
  if (view->logits != work_.data()) {
    work_.assign(view->logits, view->logits + view->n);
    view->logits = work_.data();
  }
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
    block_max_[block] = largest(work_.data() + begin, std::min(kBlock, view->n - begin)).value;
  }
  view->max = *std::max_element(block_max_.begin(), block_max_.end());
  if (view->max == -kInfinity) {
    throw Error(ErrorKind::kArgument, history.constraint()
                                          ? "every token that the grammar lets come is banned by "
                                            "logit_bias, penalties and suppressed tokens: leave one"
                                          : "every token is banned by logit_bias, penalties and "
                                            "suppressed tokens: leave at least one");
  }
}

/// Makes every token with a finite logit of at least `lowest` a candidate; returns false if there
/// are more than `limit`.
bool Chooser::collect(const View& view, float lowest, size_t limit) {
  candidates_.clear();
  lowest = std::max(lowest, -kLargest);
  for (size_t block = 0; block < block_max_.size(); ++block) {
    if (block_max_[block] < lowest) continue;
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    const int64_t end = std::min(begin + kBlock, view.n);
    for (int64_t i = begin; i < end; ++i) {
      if (view.logits[i] >= lowest) candidates_.push_back({view.logits[i], view.id(i), 0});
    }
    if (candidates_.size() > limit) return false;
  }
  return true;
}

void Chooser::keep_top_k(const View& view) {
  const size_t k = static_cast<size_t>(params_.top_k);
  // k blocks have a token at least as large as the k-th largest block maximum, so no smaller token
  // is kept.
  float lowest = -kInfinity;
  if (k <= block_max_.size()) {
    ranking_ = block_max_;
    std::nth_element(ranking_.begin(), ranking_.begin() + (k - 1), ranking_.end(),
                     std::greater<float>());
    lowest = ranking_[k - 1];
  }
  collect(view, lowest, std::numeric_limits<size_t>::max());
  if (candidates_.size() > k) {
    std::nth_element(candidates_.begin(), candidates_.begin() + (k - 1), candidates_.end(),
                     kBetter);
    candidates_.resize(k);
  }
}

uint64_t Chooser::weigh_candidates(const View& view) {
  const double max = view.max, per_temperature = 1.0 / static_cast<double>(params_.temperature);
  uint64_t total = 0;
  for (Candidate& c : candidates_) {
    c.weight = rounded(portable_exp((c.logit - max) * per_temperature) * kWeightOne);
    total += c.weight;
  }
  return total;
}

/// The weight that the nucleus must reach, given the weight of all tokens; monotone in `total`.
uint64_t Chooser::nucleus_mass(uint64_t total) const {
  return static_cast<uint64_t>(
      std::ceil(static_cast<double>(params_.top_p) * static_cast<double>(total)));
}

/// Moves the shortest prefix of the candidates, in sorted order, whose weights reach `mass` to the
/// front and returns its length. Takes linear time.
size_t Chooser::nucleus_size(uint64_t mass) {
  const auto begin = candidates_.begin();
  auto low = begin, high = candidates_.end();  // [begin, low) is in, [high, end) is out
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

/// The usual case of top-p, a small nucleus: the tokens within some distance of the largest logit
/// are a prefix of the sorted order, and if they have enough mass they contain the nucleus. Returns
/// false, without a result, if that would take too many tokens or an exact total.
bool Chooser::keep_small_nucleus(const View& view) {
  constexpr size_t kLimit = 8192;
  const float max = view.max, per_temperature = 1.0f / params_.temperature;
  if (!(per_temperature >= 1e-30f && per_temperature <= 1e30f))
    return false;  // out of range for floats
  double total = 0;
  for (size_t block = 0; block < block_max_.size(); ++block) {
    if ((block_max_[block] - max) * per_temperature < -kWeightlessGap) continue;
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    total +=
        rough_exp_sum(view.logits + begin, std::min(kBlock, view.n - begin), max, per_temperature);
  }
  total *= kWeightOne;
  // Besides the error of the sum, each of the n weights is rounded to an integer or omitted if it
  // is 0.
  const double slack = kRoughError * total + static_cast<double>(view.n);
  const uint64_t least_mass = nucleus_mass(static_cast<uint64_t>(std::max(total - slack, 1.0)));
  const uint64_t most_mass = nucleus_mass(static_cast<uint64_t>(total + slack));
  for (double gap = 4; gap <= 16; gap *= 2) {
    const double lowest = static_cast<double>(max) - gap * params_.temperature;
    if (!collect(view, to_logit(lowest), kLimit)) return false;
    if (weigh_candidates(view) < most_mass) continue;
    const size_t size = nucleus_size(least_mass);
    uint64_t sum = 0;
    for (size_t i = 0; i < size; ++i) sum += candidates_[i].weight;
    candidates_.resize(size);
    return sum >= most_mass;  // every total in the interval gives this nucleus
  }
  return false;
}

/// The general case: a histogram of all weights over slices of the logits' range shows in which
/// slice the nucleus ends, and only the tokens of that slice are sorted. Returns the last token of
/// the nucleus.
Chooser::Candidate Chooser::end_of_nucleus(const View& view) {
  constexpr int kSlices = 1024;
  const double max = view.max, per_temperature = 1.0 / static_cast<double>(params_.temperature);
  const auto slice_of = [](double x) {  // x: (logit - largest) / temperature
    return static_cast<int>(std::max(x, -kWeightlessGap) * -((kSlices - 1) / kWeightlessGap));
  };
  uint64_t weights[kSlices] = {};
  uint64_t total = 0;
  double x[kBlock];
  int slices[kBlock];
  for (size_t block = 0; block < block_max_.size(); ++block) {
    if ((block_max_[block] - max) * per_temperature < -kWeightlessGap) continue;
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    const int64_t count = std::min(kBlock, view.n - begin);
    for (int64_t i = 0; i < count; ++i) {
      x[i] = (view.logits[begin + i] - max) * per_temperature;
      slices[i] = slice_of(x[i]);
    }
    portable_exp(x, count);
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t weight = rounded(x[i] * kWeightOne);
      weights[slices[i]] += weight;
      total += weight;
    }
  }
  uint64_t mass = nucleus_mass(total);
  int last = 0;
  while (weights[last] < mass) mass -= weights[last++];

  candidates_.clear();
  for (size_t block = 0; block < block_max_.size(); ++block) {
    if (slice_of((block_max_[block] - max) * per_temperature) > last) continue;
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    const int64_t end = std::min(begin + kBlock, view.n);
    for (int64_t i = begin; i < end; ++i) {
      if (slice_of((view.logits[i] - max) * per_temperature) == last) {
        candidates_.push_back({view.logits[i], view.id(i), 0});
      }
    }
  }
  weigh_candidates(view);
  const auto end = candidates_.begin() + static_cast<int64_t>(nucleus_size(mass));
  return *std::max_element(candidates_.begin(), end, kBetter);
}

/// Samples from the tokens up to `last` in sorted order whose scaled logit is at least `lowest`.
int32_t Chooser::sample_all(const View& view, const GumbelNoise& noise, double lowest,
                            const Candidate& last) const {
  // The block of the largest logit comes first, so that the score to beat is high from the start.
  const size_t first =
      std::find(block_max_.begin(), block_max_.end(), view.max) - block_max_.begin();
  const float* largest = std::find(view.logits + first * kBlock, view.logits + view.n, view.max);
  const int32_t largest_id = view.id(largest - view.logits);
  Best best;
  best.offer(scaled(view.max), noise.bits(largest_id, noise.upper(largest_id)), largest_id);

  const auto visit = [&](size_t block) {
    const double max = scaled(block_max_[block]);
    if (max < lowest || block_max_[block] < last.logit) return;
    if (max + kGumbelMax < best.score()) return;
    // The rounding of the two sums is far below this slack.
    const double slack = 1e-9 + 1e-15 * (std::fabs(best.score()) + std::fabs(max));
    const uint32_t needed = GumbelNoise::needed(best.score() - max - slack);
    const auto consider = [&](int64_t i, uint32_t upper) {
      if (needed & ~upper) return;
      const float logit = view.logits[i];
      const int32_t id = view.id(i);
      if (logit < last.logit || (logit == last.logit && id > last.id)) return;
      const double x = scaled(logit);
      if (x >= lowest) best.offer(x, noise.bits(id, upper), id);
    };
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    const int64_t end = std::min(begin + kBlock, view.n);
    if (view.ids) {
      for (int64_t i = begin; i < end; ++i) consider(i, noise.upper(view.ids[i]));
      return;
    }
    static_assert(kBlock == 4 * 64);
    uint64_t hits = 0;  // bit g: some token of group g of the block may win
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
