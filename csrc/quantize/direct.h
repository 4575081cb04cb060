// Encodes types whose scale follows from a block's extreme values, with the float32 operations of
// gguf-py in the same order. x: one block of 32 finite values; out: the block's bytes.
#pragma once

#include <cstdint>

namespace gemtp {

void encode_q8_0(const float* x, uint8_t* out);
void encode_q4_0(const float* x, uint8_t* out);
void encode_q4_1(const float* x, uint8_t* out);
void encode_q5_0(const float* x, uint8_t* out);
void encode_q5_1(const float* x, uint8_t* out);
void encode_mxfp4(const float* x, uint8_t* out);

}  // namespace gemtp
