// All kernels, by the names that the host asks for.

// Of a panel of 1, 2, 4, 8 or 16 activation rows.
#define GPU_FEW_ROWS(NAME, FORMAT, SUFFIX, ACTIVATION)                         \
  GPU_KERNEL(NAME##_1##SUFFIX, SplitMatmul<LaneDots<FORMAT, 1>, ACTIVATION>)   \
  GPU_KERNEL(NAME##_2##SUFFIX, SplitMatmul<LaneDots<FORMAT, 2>, ACTIVATION>)   \
  GPU_KERNEL(NAME##_4##SUFFIX, SplitMatmul<LaneDots<FORMAT, 4>, ACTIVATION>)   \
  GPU_KERNEL(NAME##_8##SUFFIX, SplitMatmul<TensorDots<FORMAT, 8>, ACTIVATION>) \
  GPU_KERNEL(NAME##_16##SUFFIX, SplitMatmul<TensorDots<FORMAT, 16>, ACTIVATION>)
#define GPU_QUANTIZED(NAME, FORMAT)                                                \
  GPU_FEW_ROWS(matmul_##NAME, FORMAT, , kPlain)                                    \
  GPU_FEW_ROWS(matmul_##NAME, FORMAT, _gated, kGated)                              \
  GPU_FEW_ROWS(matmul_##NAME, FORMAT, _factor, kGatedByFactor)                     \
  GPU_KERNEL(matmul_##NAME##_many, ManyRowsMatmul<TensorDots<FORMAT, kManyRows> >) \
  GPU_KERNEL(embed_##NAME, Embed<FORMAT>)

GPU_QUANTIZED(q8_0, Q8_0)
GPU_QUANTIZED(q4_0, Q4_0)
GPU_QUANTIZED(q4_1, Q4_1)
GPU_QUANTIZED(q5_0, Q5_0)
GPU_QUANTIZED(q5_1, Q5_1)
GPU_QUANTIZED(q4_k, Q4_K)
GPU_QUANTIZED(q5_k, Q5_K)
GPU_QUANTIZED(q6_k, Q6_K)
GPU_QUANTIZED(iq4_nl, IQ4_NL)
GPU_QUANTIZED(mxfp4, MXFP4)
GPU_QUANTIZED(iq4_xs, IQ4_XS)
GPU_QUANTIZED(t4_g, T4_G)
GPU_QUANTIZED(t4_gm, T4_GM)

#define GPU_FLOATS_OF(NAME, ELEMENT, SUFFIX, ACTIVATION)                       \
  GPU_KERNEL(NAME##_1##SUFFIX, SplitMatmul<FloatDots<ELEMENT, 1>, ACTIVATION>) \
  GPU_KERNEL(NAME##_4##SUFFIX, SplitMatmul<FloatDots<ELEMENT, 4>, ACTIVATION>) \
  GPU_KERNEL(NAME##_16##SUFFIX, SplitMatmul<FloatDots<ELEMENT, 16>, ACTIVATION>)
#define GPU_FLOATS(NAME, ELEMENT)                       \
  GPU_FLOATS_OF(matmul_##NAME, ELEMENT, , kPlain)       \
  GPU_FLOATS_OF(matmul_##NAME, ELEMENT, _gated, kGated) \
  GPU_FLOATS_OF(matmul_##NAME, ELEMENT, _factor, kGatedByFactor)

GPU_FLOATS(f32, F32)
GPU_FLOATS(f16, F16)
GPU_FLOATS(bf16, BF16)

GPU_KERNEL(norm, Norm)

GPU_KERNEL(heads_f32, Heads<FloatKv>)
GPU_KERNEL(heads_f16, Heads<HalfKv>)
GPU_KERNEL(attention_scores_f32_2, AttentionScores<FloatKv, 2>)
GPU_KERNEL(attention_scores_f32_8, AttentionScores<FloatKv, 8>)
GPU_KERNEL(attention_scores_f16_2, AttentionScores<HalfKv, 2>)
GPU_KERNEL(attention_scores_f16_8, AttentionScores<HalfKv, 8>)
GPU_KERNEL(attention_values_f32_2, AttentionValues<FloatKv, 2>)
GPU_KERNEL(attention_values_f32_8, AttentionValues<FloatKv, 8>)
GPU_KERNEL(attention_values_f16_2, AttentionValues<HalfKv, 2>)
GPU_KERNEL(attention_values_f16_8, AttentionValues<HalfKv, 8>)

GPU_KERNEL(copy, Elements<kCopy>)
GPU_KERNEL(quantize, Elements<kQuantize>)
GPU_KERNEL(gelu_mul, Elements<kGeluMul>)
GPU_KERNEL(softcap, Elements<kSoftcap>)
GPU_KERNEL(gather, Gather)
GPU_KERNEL(weighted_sum, WeightedSum)

GPU_KERNEL(head_softcap, HeadSoftcap)
GPU_KERNEL(best_of_parts, BestOfParts)
GPU_KERNEL(top_clusters, TopClusters)
GPU_KERNEL(sort_candidates, SortCandidates)
GPU_KERNEL(route, Route)
