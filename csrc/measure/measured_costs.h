// What passes cost, measured before: the depth control starts from it.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"

namespace gemtp {

/// Seconds of a pass over `rows` rows behind `context` positions.
struct VerifyCost {
  int rows;  // 1 .. 16
  int64_t context;
  double seconds;
};

/// Seconds of a draft step behind `context` positions.
struct DraftCost {
  int step;  // 0: the first of a round; 1: any other, known only beside a first of its context
  int64_t context;
  double seconds;
};

/// Error{kArgument} for rows or steps that there are not, and for seconds that are not positive and
/// finite; then nothing has been learned.
void start_from(Engine& engine, const std::vector<VerifyCost>& verify,
                const std::vector<DraftCost>& draft);

}  // namespace gemtp
