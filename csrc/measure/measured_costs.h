// Costs of passes that were measured before, from which the depth control starts.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"

namespace gemtp {

/// Seconds of a pass over `rows` rows after `context` positions.
struct VerifyCost {
  int rows;  // 1 .. 16
  int64_t context;
  double seconds;
};

/// Seconds of a draft step after `context` positions.
struct DraftCost {
  int step;  // 0: the first of a round; 1: any other, needs a first with the same context
  int64_t context;
  double seconds;
};

/// Teaches these costs to the depth control. Throws Error{kArgument} for rows or steps out of
/// range, and for seconds that are not positive and finite; then nothing has been learned.
void start_from(Engine& engine, const std::vector<VerifyCost>& verify,
                const std::vector<DraftCost>& draft);

}  // namespace gemtp
