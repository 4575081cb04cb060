"""A model's figures as GGUF metadata, and the RoPE divisors, which GGUF keeps as a tensor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...gguf.file import Metadata
from .config import ModelConfig, OrderedHead

_UNROTATED = 1e30  # frequency divisor of pairs that do not rotate


def write_hyperparameters(m: Metadata, c: ModelConfig, name: str, file_type: int) -> None:
    arch = c.arch
    m.string("general.architecture", arch)
    m.string("general.type", "model")
    m.string("general.name", name.encode("utf-8", "replace"))
    m.u32("general.file_type", file_type)
    m.u32("general.quantization_version", 2)
    m.u32(f"{arch}.block_count", c.layers)
    m.u32(f"{arch}.context_length", c.context_length)
    m.u32(f"{arch}.embedding_length", c.hidden)
    _scalar_or_array(m, f"{arch}.feed_forward_length", c.feed_forward)
    m.u32(f"{arch}.attention.head_count", c.heads)
    _scalar_or_array(m, f"{arch}.attention.head_count_kv", c.kv_heads)
    m.u32(f"{arch}.attention.key_length", c.head_dim_full)
    m.u32(f"{arch}.attention.value_length", c.head_dim_full)
    m.u32(f"{arch}.attention.key_length_swa", c.head_dim_sliding)
    m.u32(f"{arch}.attention.value_length_swa", c.head_dim_sliding)
    m.f32(f"{arch}.attention.layer_norm_rms_epsilon", c.rms_eps)
    m.u32(f"{arch}.attention.sliding_window", c.window)
    m.bool_array(f"{arch}.attention.sliding_window_pattern", c.sliding)
    m.u32(f"{arch}.attention.shared_kv_layers", c.shared_kv_layers)
    m.f32(f"{arch}.rope.freq_base", c.rope_base_full)
    m.f32(f"{arch}.rope.freq_base_swa", c.rope_base_sliding)
    m.u32(f"{arch}.rope.dimension_count", c.head_dim_full)
    m.u32(f"{arch}.rope.dimension_count_swa", c.head_dim_sliding)
    m.u32(f"{arch}.embedding_length_per_layer_input", c.ple_width)
    if c.softcap is not None:
        m.f32(f"{arch}.final_logit_softcapping", c.softcap)
    if c.experts:
        m.u32(f"{arch}.expert_count", c.experts)
        m.u32(f"{arch}.expert_used_count", c.experts_used)
        m.u32(f"{arch}.expert_feed_forward_length", c.expert_feed_forward)
    if c.drafter:
        m.u32(f"{arch}.embedding_length_out", c.backbone)
        m.u32(f"{arch}.nextn_predict_layers", c.layers)


def write_sampling(m: Metadata, sampling: Mapping[str, float]) -> None:
    """Recommended sampling options, by the last part of their keys."""
    for name, value in sampling.items():
        key = f"general.sampling.{name}"
        if isinstance(value, int):
            m.i32(key, value)
        else:
            m.f32(key, value)


def write_ordered_head(
    m: Metadata, head: OrderedHead, centroids: np.ndarray, token_order: np.ndarray
) -> None:
    """centroids: [num_centroids, hidden]; token_order: [vocab], the tokens cluster by cluster."""
    m.u32("gemtp.ordered_head.num_centroids", head.num_centroids)
    m.u32("gemtp.ordered_head.top_k", head.top_k)
    m.f32_array("gemtp.ordered_head.centroids", centroids.reshape(-1))
    m.i32_array("gemtp.ordered_head.token_order", token_order)


def _scalar_or_array(m: Metadata, key: str, values: list[int]) -> None:
    if len(set(values)) == 1:
        m.u32(key, values[0])
    else:
        m.i32_array(key, values)


def rope_freqs(c: ModelConfig) -> np.ndarray:
    """Returns the divisors of the full layers' frequencies, [head_dim / 2]: 1 for pairs that
    rotate, 1e30 for the others."""
    pairs = c.head_dim_full // 2
    rotating = int(c.rope_factor_full * c.head_dim_full // 2)
    freqs = np.full(pairs, _UNROTATED, dtype=np.float32)
    freqs[:rotating] = 1.0
    return freqs
