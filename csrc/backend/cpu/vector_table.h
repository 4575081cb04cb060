// The table of an instruction set: GEMTP_TABLE, called GEMTP_TABLE_NAME, of the kernels that the
// vector_*.h headers make over its 16 lanes and of its Q8_0 and Q4_0. Included last.
#pragma once

extern "C" const gemtp_kernels GEMTP_TABLE = {
    GEMTP_TABLE_NAME,
    quantize_q8,
    matmul_float<F32>,
    matmul_float<F16>,
    matmul_float<Bf16>,
    matmul_quantized<Q8_0>,
    matmul_quantized<Q4_0>,
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
