// Functions for text that sessions need too.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace gemtp {

/// Encodes a text. flags: GEMTP_ADD_BOS and GEMTP_PARSE_SPECIAL.
std::vector<int32_t> encode(const Engine& engine, std::string_view text, int32_t flags);

}  // namespace gemtp
