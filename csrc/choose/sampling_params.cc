#include "choose/sampling_params.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <string>

#include "base/error.h"
#include "gguf/reader.h"

namespace gemtp {
namespace {

/// A parameter that is one number, and what it may be.
struct Knob {
  const char* name;
  float SamplingParams::* real;       // null: it is whole
  int32_t SamplingParams::* integer;  // null: it is real
  bool (*holds)(float);
  const char* domain;
};

bool finite(float x) { return std::isfinite(x); }
bool positive(float x) { return x > 0 && finite(x); }

using P = SamplingParams;
constexpr Knob kKnobs[] = {
    {"temperature", &P::temperature, nullptr, [](float x) { return x >= 0 && finite(x); },
     "0 (greedy) or a finite number above 0"},
    {"top_k", nullptr, &P::top_k, [](float x) { return x >= -1; }, "0 or -1 (off) or above"},
    {"top_p", &P::top_p, nullptr, [](float x) { return x >= 0 && x <= 1; },
     "at least 0 (the likeliest token alone) and at most 1 (off)"},
    {"min_p", &P::min_p, nullptr, [](float x) { return x >= 0 && x < 1; },
     "at least 0 (off) and below 1"},
    {"repetition_penalty", &P::repetition_penalty, nullptr, positive,
     "a finite number above 0 (1: off)"},
    {"presence_penalty", &P::presence_penalty, nullptr, finite, "finite (0: off)"},
    {"frequency_penalty", &P::frequency_penalty, nullptr, finite, "finite (0: off)"},
    {"penalty_last_n", nullptr, &P::penalty_last_n, [](float x) { return x >= -1; },
     "-1 (all tokens), 0 (none) or above"},
};

/// The shortest number that is read as this one.
template <class T>
std::string shown(T value) {
  char text[40];
  for (int digits = 1; digits <= std::numeric_limits<T>::max_digits10; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, static_cast<double>(value));
    if (static_cast<T>(std::strtod(text, nullptr)) == value) break;
  }
  return text;
}

/// Error{kind} that says so of `who`.
[[noreturn]] void refuse(ErrorKind kind, const std::string& who, const std::string& value,
                         const Knob& knob) {
  throw Error(kind, format("%s is %s but must be %s", who.c_str(), value.c_str(), knob.domain));
}

const Knob& knob_of(const char* name) {
  const Knob* knob = std::find_if(std::begin(kKnobs), std::end(kKnobs),
                                  [name](const Knob& k) { return std::strcmp(k.name, name) == 0; });
  GEMTP_ASSERT(knob != std::end(kKnobs));
  return *knob;
}

/// Error{kind} for a number that the knob does not take, as it was given.
void check(ErrorKind kind, const std::string& who, double given, const Knob& knob) {
  const auto nearest = static_cast<float>(given);
  const bool whole = given == std::floor(given) && given <= std::numeric_limits<int32_t>::max();
  if (knob.holds(nearest) && (knob.real || whole)) return;
  const bool rounded = (nearest == 0 && given != 0) || (!finite(nearest) && std::isfinite(given));
  refuse(kind, who, shown(given) + (rounded ? ", beyond single precision," : ""), knob);
}

// The keys below general.sampling. that llama.cpp writes, and reads, too.
constexpr std::pair<const char*, const char*> kKeys[] = {
    {"temp", "temperature"},
    {"top_k", "top_k"},
    {"top_p", "top_p"},
    {"min_p", "min_p"},
    {"penalty_repeat", "repetition_penalty"},
    {"penalty_last_n", "penalty_last_n"},
};

}  // namespace

void set_parameter(SamplingParams* params, const char* name, double given) {
  const Knob& knob = knob_of(name);
  check(ErrorKind::kArgument, name, given, knob);
  if (knob.real)
    params->*knob.real = static_cast<float>(given);
  else
    params->*knob.integer = static_cast<int32_t>(given);
}

std::vector<RecommendedParameter> recommended_sampling(const GgufFile& file) {
  std::vector<RecommendedParameter> out;
  for (const auto& [last, name] : kKeys) {
    const std::string key = std::string("general.sampling.") + last;
    if (!file.has(key)) continue;
    const Knob& knob = knob_of(name);
    const double value = knob.real ? *file.get_float(key) : static_cast<double>(*file.get_int(key));
    check(ErrorKind::kFile, file.quoted_path() + ": key '" + key + "'", value, knob);
    // 0.95 rather than the double nearest to the float nearest to it.
    const double shortest = std::strtod(shown(static_cast<float>(value)).c_str(), nullptr);
    out.push_back({name, knob.real ? shortest : value, knob.integer != nullptr});
  }
  return out;
}

void validate(const SamplingParams& params, int32_t vocab_size) {
  for (const Knob& knob : kKnobs) {
    if (knob.real && !knob.holds(params.*knob.real))
      refuse(ErrorKind::kArgument, knob.name, shown(params.*knob.real), knob);
    if (knob.integer) check(ErrorKind::kArgument, knob.name, params.*knob.integer, knob);
  }
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorKind::kArgument,
                  format("logit_bias names token %d but the vocabulary has the ids 0 to %d", id,
                         vocab_size - 1));
    }
    if (!finite(bias) && bias != -std::numeric_limits<float>::infinity()) {
      throw Error(
          ErrorKind::kArgument,
          format("logit_bias of token %d is %g but must be finite, or -inf to ban the token", id,
                 static_cast<double>(bias)));
    }
  }
  for (const int32_t id : params.suppress_tokens) {
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorKind::kArgument,
                  format("suppress_tokens names token %d but the vocabulary has the ids 0 to %d",
                         id, vocab_size - 1));
    }
  }
}

uint64_t draw_seed() { return std::random_device()() & 0xFFFFFFFFu; }

}  // namespace gemtp
