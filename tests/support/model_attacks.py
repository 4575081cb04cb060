"""Attacks on the meaning of a file: a model whose parts contradict each other, weights that are NaN
or infinite, a drafter that does not fit. Every file here is valid GGUF."""

from __future__ import annotations

import struct

import numpy as np

import gguf_bytes as gb
import tiny_files
from attack_changes import (
    U32_MAX,
    Change,
    assign,
    drop,
    flatten,
    put,
    put_array,
    resize,
    retype,
    swap_shape,
)
from gguf_bytes import BOOL, F32, F64, I32, STRING, U32, U64, Gguf, Tensor

NAN16, INF16 = struct.pack("<e", float("nan")), struct.pack("<e", float("-inf"))


def model() -> dict[str, Change]:
    a, att = "gemma4.", "gemma4.attention."
    changes: dict[str, Change] = {
        "layers-more-than-tensors": put(a + "block_count", U32, 4),
        "shared-layers-all": put(att + "shared_kv_layers", U32, 3),
        "shared-layers-more-than-layers": put(att + "shared_kv_layers", U32, 4),
        "shared-layers-maximal": put(att + "shared_kv_layers", U32, U32_MAX),
        "shared-layers-negative": put(att + "shared_kv_layers", I32, -1),
        "shared-layers-without-source": put(att + "shared_kv_layers", U32, 2),
        "kv-heads-too-few-entries": put_array(att + "head_count_kv", I32, [2, 1]),
        "kv-heads-too-many-entries": put_array(att + "head_count_kv", I32, [2, 1, 2, 1]),
        "kv-heads-no-entries": put_array(att + "head_count_kv", I32, []),
        "kv-heads-one-zero": put_array(att + "head_count_kv", I32, [2, 0, 2]),
        "kv-heads-one-negative": put_array(att + "head_count_kv", I32, [2, -1, 2]),
        "kv-heads-do-not-divide": put(a + "attention.head_count_kv", U32, 3),
        "kv-heads-differ-from-source": put_array(att + "head_count_kv", I32, [2, 1, 1]),
        "pattern-too-few-entries": put_array(att + "sliding_window_pattern", BOOL, [True, False]),
        "pattern-no-entries": put_array(att + "sliding_window_pattern", BOOL, []),
        "feed-forward-too-few-entries": put_array(a + "feed_forward_length", U32, [32, 32]),
        "feed-forward-one-zero": put_array(a + "feed_forward_length", U32, [32, 0, 32]),
        "key-length-odd": put(att + "key_length", U32, 31),
        "value-length-differs": put(att + "value_length", U32, 16),
        "rope-dimensions-differ": put(a + "rope.dimension_count", U32, 16),
        "window-negative": put(att + "sliding_window", I32, -16),
        "per-layer-width-maximal": put(a + "embedding_length_per_layer_input", U32, U32_MAX),
        "per-layer-width-differs": put(a + "embedding_length_per_layer_input", U32, 64),
        "is-a-drafter": lambda _: tiny_files.sound_drafter().encode(),
        "only-a-vocabulary": assign(tensors=[]),
        "matrix-transposed": swap_shape("per_layer_model_proj.weight"),
        "norm-too-short": resize("output_norm.weight", [16], 64),
        "norm-quantized": retype("output_norm.weight", gb.T_Q8_0),
        "embedding-one-dimension": flatten("token_embd.weight"),
        "embedding-wrong-width": resize("token_embd.weight", [64, 152], 304 * 34),
        "matrix-three-dimensions": resize("blk.0.ffn_up.weight", [32, 16, 2], 32 * 34),
        "matrix-type-without-kernel": retype("blk.0.attn_q.weight", gb.T_Q8_1),
        "matrix-type-integer": retype("blk.0.ffn_gate.weight", gb.T_I32),
        "embedding-type-without-kernel": retype("token_embd.weight", gb.T_Q8_1),
        "layer-scale-two-values": resize("blk.0.layer_output_scale.weight", [2], 8),
        "fused-qkv-wrong-shape": lambda g: g.tensors.append(
            Tensor("blk.0.attn_qkv.weight", [32, 32], gb.T_F32, bytes(32 * 32 * 4))
        ),
        "output-head-wrong-shape": lambda g: g.tensors.append(
            Tensor("output.weight", [32, 16], gb.T_F32, bytes(32 * 16 * 4))
        ),
    }
    widths = {
        "layers": a + "block_count",
        "hidden": a + "embedding_length",
        "feed-forward": a + "feed_forward_length",
        "heads": att + "head_count",
        "kv-heads": att + "head_count_kv",
        "key-length": att + "key_length",
        "key-length-sliding": att + "key_length_swa",
        "window": att + "sliding_window",
        "context": a + "context_length",
    }
    for what, key in widths.items():
        for value in (0, 2**31 - 1, U32_MAX):
            changes[f"{what}-{value}"] = put(key, U32, value)
        changes[f"{what}-64-bit"] = put(key, U64, 2**63 + 1)
        optional = {"key-length-sliding"}
        if what not in optional:
            changes[f"{what}-missing"] = drop(key)
    for what, key in {
        "epsilon": att + "layer_norm_rms_epsilon",
        "softcap": a + "final_logit_softcapping",
        "rope-base": a + "rope.freq_base",
        "rope-base-sliding": a + "rope.freq_base_swa",
    }.items():
        for value in (float("nan"), float("inf"), -1.0):
            changes[f"{what}-{value}"] = put(key, F32, value)
    changes["epsilon-zero"] = put(att + "layer_norm_rms_epsilon", F32, 0.0)
    changes["epsilon-denormal"] = put(att + "layer_norm_rms_epsilon", F32, 1e-40)
    changes["softcap-denormal"] = put(a + "final_logit_softcapping", F32, 1e-40)
    changes["softcap-underflows"] = put(a + "final_logit_softcapping", F64, 1e-300)
    changes["rope-scaling-factor"] = put(a + "rope.scaling.factor", F32, 8.0)
    changes["rope-scaling-type"] = put(a + "rope.scaling.type", STRING, "yarn")
    changes["unknown-tensor"] = lambda g: g.tensors.append(
        Tensor("blk.0.attn_q.bias", [32], gb.T_F32, bytes(128))
    )
    changes["rope-base-zero"] = put(a + "rope.freq_base", F32, 0.0)
    changes["pattern-missing"] = drop(att + "sliding_window_pattern")
    for tensor in tiny_files.sound_target().tensors:
        name = str(tensor.name)
        # The absence of these has a meaning: V is the raw K; a scale is 1.
        if not name.endswith(("attn_v.weight", "layer_output_scale.weight")):
            changes[f"tensor-missing-{name.removesuffix('.weight')}"] = drop(name)
    return changes


def experts() -> dict[str, Change]:
    a = "gemma4.expert_"
    p = "blk.0."

    def without(*parts: str) -> Change:
        def change(g: Gguf) -> None:
            g.tensors = [t for t in g.tensors if not any(part in str(t.name) for part in parts)]

        return change

    changes: dict[str, Change] = {
        "count-differs-from-tensors": put(a + "count", U32, 8),
        "count-1-less": put(a + "count", U32, 3),
        "count-maximal": put(a + "count", U32, U32_MAX),
        "count-negative": put(a + "count", I32, -4),
        "count-is-text": put(a + "count", STRING, "4"),
        "used-0": put(a + "used_count", U32, 0),
        "used-more-than-count": put(a + "used_count", U32, 5),
        "used-missing": drop(a + "used_count"),
        "width-0": put(a + "feed_forward_length", U32, 0),
        "width-differs": put(a + "feed_forward_length", U32, 64),
        "width-maximal": put(a + "feed_forward_length", U32, U32_MAX),
        "width-missing": drop(a + "feed_forward_length"),
        "no-tensors-at-all": without("exps", "gate_inp", "ffw_norm_1", "ffw_norm_2"),
        "router-missing-in-one-layer": drop(p + "ffn_gate_inp.weight"),
        "gate-without-up": lambda g: setattr(
            g.tensor(p + "ffn_gate_up_exps.weight"), "name", p + "ffn_gate_exps.weight"
        ),
        "two-dimensions": resize(p + "ffn_down_exps.weight", [32, 128], 128 * 18),
        "nan-scale": lambda g: setattr(
            g.tensor(p + "ffn_down_exps.weight"),
            "data",
            g.tensor(p + "ffn_down_exps.weight").data[:-18] + NAN16 + bytes(16),
        ),
    }
    for name in ("gate_inp.scale", "gate_up_exps.weight", "down_exps.weight", "down_exps.scale"):
        changes[f"tensor-missing-{name}"] = drop(f"{p}ffn_{name}")
    return changes


def data() -> dict[str, Change]:
    def overwrite(name: str, at: int, value: bytes) -> Change:
        def change(g: Gguf) -> None:
            t = g.tensor(name)
            at_byte = at % len(t.data)
            t.data = t.data[:at_byte] + value + t.data[at_byte + len(value) :]

        return change

    def everywhere(name: str, block: int, value: bytes) -> Change:
        def change(g: Gguf) -> None:
            t = g.tensor(name)
            t.data = b"".join(
                value + t.data[i + len(value) : i + block] for i in range(0, len(t.data), block)
            )

        return change

    def floats(name: str, value: float, at: int = 0) -> Change:
        return overwrite(name, at, struct.pack("<f", value))

    def recast(name: str, kind: int, value: bytes) -> Change:
        """Stores the matrix as 16-bit floats, one of them invalid."""

        def change(g: Gguf) -> None:
            retype(name, kind)(g)
            overwrite(name, -2, value)(g)

        return change

    nan, inf = float("nan"), float("inf")
    return {
        "nan-scale-q8_0": overwrite("blk.0.attn_q.weight", 34, NAN16),
        "inf-scale-q8_0": overwrite("blk.0.ffn_up.weight", 0, INF16),
        "nan-scale-q8_0-last-block": overwrite("blk.2.attn_output.weight", -34, NAN16),
        "nan-scale-q4_0": overwrite("blk.1.attn_k.weight", 18, NAN16),
        "inf-scale-q4_0": overwrite("blk.0.ffn_down.weight", -18, INF16),
        "nan-scale-in-embedding": overwrite("token_embd.weight", 34 * 100, NAN16),
        "nan-scale-in-per-layer-embedding": everywhere("per_layer_token_embd.weight", 18, NAN16),
        "inf-scale-in-per-layer-embedding": everywhere("per_layer_token_embd.weight", 18, INF16),
        "nan-in-f32-matrix": floats("blk.0.attn_v.weight", nan, 400),
        "inf-in-f32-matrix": floats("per_layer_model_proj.weight", inf, -4),
        "nan-in-f16-matrix": recast("blk.1.attn_v.weight", gb.T_F16, NAN16),
        "inf-in-bf16-matrix": recast("blk.1.attn_v.weight", gb.T_BF16, b"\x80\x7f"),
        "nan-in-norm": floats("blk.1.ffn_norm.weight", nan, 16),
        "inf-in-norm": floats("output_norm.weight", inf),
        "nan-in-layer-scale": floats("blk.0.layer_output_scale.weight", nan),
        "nan-in-rope-factors": floats("rope_freqs.weight", nan),
        "zero-in-rope-factors": floats("rope_freqs.weight", 0.0, 8),
        "denormal-in-rope-factors": floats("rope_freqs.weight", 1e-40, 8),
        "small-in-rope-factors": floats("rope_freqs.weight", 1e-30, 8),
        "negative-in-rope-factors": floats("rope_freqs.weight", -1.0, 8),
    }


def drafter() -> dict[str, Change]:
    a, head = "gemma4-assistant.", "gemtp.ordered_head."
    order = list(range(len(tiny_files.TOKENS)))
    centroids = [0.5] * (tiny_files.CENTROIDS * tiny_files.HIDDEN)

    def other_vocabulary(g: Gguf) -> None:
        g.keys = [k for k in g.keys if not str(k.name).startswith(head)]
        t = g.tensor("token_embd.weight")
        t.shape, t.data = [32, 288], t.data[: 288 * 34]

    def other_backbone(g: Gguf) -> None:
        g.put(a + "embedding_length_out", U32, 64)
        random = np.random.default_rng(3)
        for i, t in enumerate(g.tensors):
            if t.name == "nextn.pre_projection.weight":
                g.tensors[i] = gb.random_tensor(random, str(t.name), [128, 32], gb.T_F32)
            if t.name == "nextn.post_projection.weight":
                g.tensors[i] = gb.random_tensor(random, str(t.name), [32, 64], gb.T_F32)

    def other_head_dim(g: Gguf) -> None:
        """Makes full layers with heads of 64 instead of the target's 32."""
        for name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            g.put(a + name, U32, 64)
        for name, shape in {
            "blk.1.attn_q.weight": [32, 128],
            "blk.1.attn_q_norm.weight": [64],
            "blk.1.attn_output.weight": [128, 32],
            "rope_freqs.weight": [32],
        }.items():
            t = g.tensor(name)
            t.data *= int(np.prod(shape)) // int(np.prod(t.shape))
            t.shape = shape

    def heads_do_not_share(g: Gguf) -> None:
        """Makes three heads in the sliding layer, where the target has two K/V heads."""
        g.put_array(a + "attention.head_count", I32, [3, 2])
        g.put(a + "attention.head_count_kv", U32, 1)
        g.tensor("blk.0.attn_q.weight").shape = [32, 48]
        g.tensor("blk.0.attn_q.weight").data = g.tensor("blk.0.attn_q.weight").data[:34] * 48
        g.tensor("blk.0.attn_output.weight").shape = [48, 32]
        g.tensor("blk.0.attn_output.weight").kind = gb.T_F32
        g.tensor("blk.0.attn_output.weight").data = bytes(48 * 32 * 4)

    changes: dict[str, Change] = {
        "is-a-target": lambda _: tiny_files.sound_target().encode(),
        "truncated": lambda g: g.encode()[:-1],
        "other-vocabulary": other_vocabulary,
        "other-backbone": other_backbone,
        "other-head-dim": other_head_dim,
        "heads-do-not-share": heads_do_not_share,
        "backbone-missing": drop(a + "embedding_length_out"),
        "backbone-0": put(a + "embedding_length_out", U32, 0),
        "backbone-maximal": put(a + "embedding_length_out", U32, U32_MAX),
        "backbone-differs-from-tensors": put(a + "embedding_length_out", U32, 64),
        "with-per-layer-embedding": put(a + "embedding_length_per_layer_input", U32, 32),
        "with-experts": put(a + "expert_count", U32, 4),
        "window-1": put(a + "attention.sliding_window", U32, 1),
        "rope-scaling-factor": put(a + "rope.scaling.factor", F32, 8.0),
        "denormal-in-rope-factors": lambda g: setattr(
            g.tensor("rope_freqs.weight"), "data", np.full(16, 8.8754e-41, np.float32).tobytes()
        ),
        "window-0": put(a + "attention.sliding_window", U32, 0),
        "centroids-0": put(head + "num_centroids", U32, 0),
        "centroids-do-not-divide": put(head + "num_centroids", U32, 7),
        "centroids-more-than-tokens": put(head + "num_centroids", U32, 608),
        "centroids-maximal": put(head + "num_centroids", U32, U32_MAX),
        "centroids-is-text": put(head + "num_centroids", STRING, "8"),
        "top-k-0": put(head + "top_k", U32, 0),
        "top-k-more-than-centroids": put(head + "top_k", U32, 9),
        "top-k-missing": drop(head + "top_k"),
        "centroid-values-missing": drop(head + "centroids"),
        "centroid-values-too-few": put_array(head + "centroids", F32, centroids[:-1]),
        "centroid-values-are-doubles": put_array(head + "centroids", F64, centroids),
        "centroid-nan": put_array(head + "centroids", F32, [*centroids[:-1], float("nan")]),
        "order-missing": drop(head + "token_order"),
        "order-too-short": put_array(head + "token_order", I32, order[:-1]),
        "order-too-long": put_array(head + "token_order", I32, [*order, 0]),
        "order-repeats": put_array(head + "token_order", I32, [0, *order[:-1]]),
        "order-out-of-range": put_array(head + "token_order", I32, [*order[:-1], len(order)]),
        "order-negative": put_array(head + "token_order", I32, [*order[:-1], -1]),
        "nan-scale": lambda g: setattr(
            g.tensor("blk.0.ffn_up.weight"),
            "data",
            NAN16 + g.tensor("blk.0.ffn_up.weight").data[2:],
        ),
    }
    for name in ("nextn.pre_projection", "nextn.post_projection", "token_embd", "output_norm"):
        changes[f"tensor-missing-{name}"] = drop(name + ".weight")
    return changes
