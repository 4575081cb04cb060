// Defines the table of an instruction set, GEMTP_TABLE with the name GEMTP_TABLE_NAME, from the
// kernels that the vector_*.h headers build over its 16 lanes and its quants. Must be included
// last.
#pragma once

namespace {

template <class Quants, class ItsScales>
struct Packed : Quants {
  using Scales = ItsScales;
};

}  // namespace

extern "C" const gemtp_kernels GEMTP_TABLE = {
    GEMTP_TABLE_NAME,
    quantize_q8,
    {
        matmul_float<F32>,
        matmul_float<F16>,
        matmul_float<Bf16>,
        matmul_quantized<Packed<Bytes, Half>>,
        matmul_quantized<Packed<Nibbles<8>, Half>>,
        matmul_quantized<Packed<Nibbles<0>, HalfMin>>,
        matmul_quantized<Packed<Fives<16>, Half>>,
        matmul_quantized<Packed<Fives<0>, HalfMin>>,
        matmul_quantized<Packed<Nibbles<0>, KMin>>,
        matmul_quantized<Packed<Fives<0>, KMin>>,
        matmul_quantized<Packed<Sixes, Groups<false>>>,
        matmul_quantized<Packed<Table, Half>>,
        matmul_quantized<Packed<Table, Bf16Scales>>,
        matmul_quantized<Packed<Table, KSigned>>,
        matmul_quantized<Packed<GroupTable, Groups<false>>>,
        matmul_quantized<Packed<GroupTable, Groups<true>>>,
    },
    rms_norm,
    rms_norm_add,
    gelu_mul,
    softcap,
    rope,
    scale,
    axpy,
    attention_scores,
    attention_weights,
    attention_values,
    to_f16,
};
