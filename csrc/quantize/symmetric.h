// Encodes types without a minimum, x = d * scale * level, by searching for the least weighted
// squared error. x, w: a block of 256 values or four blocks of 32, and the weights of the values'
// errors; out: the blocks' bytes.
#pragma once

#include <cstdint>

namespace gemtp {

void search_q4_0(const float* x, const float* w, uint8_t* out);
void search_q5_0(const float* x, const float* w, uint8_t* out);
void search_iq4_nl(const float* x, const float* w, uint8_t* out);
void search_iq4_xs(const float* x, const float* w, uint8_t* out);
void search_q3_k(const float* x, const float* w, uint8_t* out);
void search_q6_k(const float* x, const float* w, uint8_t* out);

}  // namespace gemtp
