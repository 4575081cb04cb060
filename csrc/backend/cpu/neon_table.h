// The table of a NEON file: GEMTP_NEON_TABLE, called GEMTP_NEON_NAME, of its Q8_0 and Q4_0.
#pragma once

extern "C" const gemtp_kernels GEMTP_NEON_TABLE = {
    GEMTP_NEON_NAME,
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
