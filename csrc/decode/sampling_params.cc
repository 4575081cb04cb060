#include "decode/sampling_params.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "base/error.h"

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

[[noreturn]] void refuse(const Knob& knob, const std::string& value) {
  throw Error(ErrorKind::kArgument,
              format("%s is %s but must be %s", knob.name, value.c_str(), knob.domain));
}

}  // namespace

void set_parameter(SamplingParams* params, const char* name, double given) {
  for (const Knob& knob : kKnobs) {
    if (std::strcmp(knob.name, name) != 0) continue;
    const auto nearest = static_cast<float>(given);
    if (!knob.holds(nearest)) {
      const bool rounded_out = std::isfinite(given) && (nearest == 0 || !finite(nearest));
      refuse(knob, shown(given) + (given != 0 && rounded_out ? ", beyond single precision," : ""));
    }
    if (knob.real) {
      params->*knob.real = nearest;
    } else {
      if (given != std::floor(given) || given > std::numeric_limits<int32_t>::max())
        refuse(knob, shown(given));
      params->*knob.integer = static_cast<int32_t>(given);
    }
    return;
  }
  throw Error(ErrorKind::kInternal, format("there is no sampling parameter %s", name));
}

void validate(const SamplingParams& params, int32_t vocab_size) {
  for (const Knob& knob : kKnobs) {
    if (knob.real && !knob.holds(params.*knob.real)) refuse(knob, shown(params.*knob.real));
    if (knob.integer && !knob.holds(static_cast<float>(params.*knob.integer)))
      refuse(knob, std::to_string(params.*knob.integer));
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
