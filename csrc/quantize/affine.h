// Encodes types with a minimum, x = d * scale * code - dmin * min, by searching for the least
// weighted squared error. x, w: a block of 256 values or four blocks of 32, and the weights of the
// values' errors; out: the blocks' bytes.
#pragma once

#include <cstdint>

namespace gemtp {

void search_q4_1(const float* x, const float* w, uint8_t* out);
void search_q5_1(const float* x, const float* w, uint8_t* out);
void search_q2_k(const float* x, const float* w, uint8_t* out);
void search_q4_k(const float* x, const float* w, uint8_t* out);
void search_q5_k(const float* x, const float* w, uint8_t* out);

}  // namespace gemtp
