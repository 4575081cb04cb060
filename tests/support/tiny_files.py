"""The smallest valid target and drafter, which tests damage in one place at a time.

The target has both layer types, a KV-shared layer and per-layer embeddings; the drafter has an
ordered head. Weights are random: they load and generate, but mean nothing.
"""

from __future__ import annotations

import numpy as np

from gguf_bytes import (
    BOOL,
    F32,
    I32,
    STRING,
    T_F32,
    T_Q4_0,
    T_Q8_0,
    U32,
    Gguf,
    random_tensor,
)

HIDDEN = 32
FFN = 32
HEADS = 2
HEAD_DIM = {True: 16, False: 32}  # key: is sliding
KV_HEADS = {True: 2, False: 1}
PER_LAYER = 32
PATTERN = [True, False, True]  # the last layer shares the K/V of the first
SHARED = 1
CENTROIDS = 8
EXPERTS = 4

NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6
MARKERS = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|tool_response>"]
MERGES = ["t h", "h e", "th e", "▁ t", "▁ the", "i n", "a n", "e r", "o n", "r e", "▁ a", "n d"]
MERGES += ["an d"]
TOKENS = [
    *MARKERS,
    *(f"<0x{byte:02X}>" for byte in range(256)),
    "▁",
    "\n",
    *"abcdefghijklmnopqrstuvwxyz",
    *(merge.replace(" ", "") for merge in MERGES),
]
TYPES = [CONTROL] * 6 + [USER_DEFINED] + [BYTE] * 256 + [NORMAL] * (len(TOKENS) - 263)
assert len(TOKENS) % CENTROIDS == 0


def put_vocabulary(g: Gguf) -> None:
    g.put("tokenizer.ggml.model", STRING, "gemma4")
    g.put_array("tokenizer.ggml.tokens", STRING, TOKENS)
    g.put_array("tokenizer.ggml.scores", F32, [-1000.0] * len(TOKENS))
    g.put_array("tokenizer.ggml.token_type", I32, TYPES)
    g.put_array("tokenizer.ggml.merges", STRING, MERGES)
    for i, name in enumerate(["padding", "eos", "bos", "unknown"]):
        g.put(f"tokenizer.ggml.{name}_token_id", U32, i)
    g.put("tokenizer.ggml.add_bos_token", BOOL, True)


def put_architecture(g: Gguf, arch: str, pattern: list[bool]) -> None:
    g.put("general.architecture", STRING, arch)
    g.put(f"{arch}.block_count", U32, len(pattern))
    g.put(f"{arch}.context_length", U32, 256)
    g.put(f"{arch}.embedding_length", U32, HIDDEN)
    g.put(f"{arch}.feed_forward_length", U32, FFN)
    g.put(f"{arch}.attention.head_count", U32, HEADS)
    g.put_array(f"{arch}.attention.head_count_kv", I32, [KV_HEADS[s] for s in pattern])
    g.put_array(f"{arch}.attention.sliding_window_pattern", BOOL, pattern)
    g.put(f"{arch}.attention.sliding_window", U32, 16)
    for name in ("key_length", "value_length"):
        g.put(f"{arch}.attention.{name}", U32, HEAD_DIM[False])
        g.put(f"{arch}.attention.{name}_swa", U32, HEAD_DIM[True])
    g.put(f"{arch}.rope.dimension_count", U32, HEAD_DIM[False])
    g.put(f"{arch}.rope.dimension_count_swa", U32, HEAD_DIM[True])
    g.put(f"{arch}.rope.freq_base", F32, 1e6)
    g.put(f"{arch}.rope.freq_base_swa", F32, 1e4)
    g.put(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-6)


def put_layers(
    g: Gguf, random: np.random.Generator, pattern: list[bool], owners: int, ple: bool
) -> None:
    def add(name: str, rows: int, cols: int, kind: int) -> None:
        g.tensors.append(random_tensor(random, name, [cols, rows], kind))

    def norm(name: str, size: int) -> None:
        g.tensors.append(random_tensor(random, name, [size], T_F32, mean=1.0))

    for i, sliding in enumerate(pattern):
        p, dim = f"blk.{i}.", HEAD_DIM[sliding]
        norm(p + "attn_norm.weight", HIDDEN)
        add(p + "attn_q.weight", HEADS * dim, HIDDEN, T_Q8_0)
        norm(p + "attn_q_norm.weight", dim)
        if i < owners:
            add(p + "attn_k.weight", KV_HEADS[sliding] * dim, HIDDEN, T_Q4_0)
            add(p + "attn_v.weight", KV_HEADS[sliding] * dim, HIDDEN, T_F32)
            norm(p + "attn_k_norm.weight", dim)
        add(p + "attn_output.weight", HIDDEN, HEADS * dim, T_Q8_0)
        norm(p + "post_attention_norm.weight", HIDDEN)
        norm(p + "ffn_norm.weight", HIDDEN)
        add(p + "ffn_gate.weight", FFN, HIDDEN, T_Q4_0)
        add(p + "ffn_up.weight", FFN, HIDDEN, T_Q8_0)
        add(p + "ffn_down.weight", HIDDEN, FFN, T_Q4_0)
        norm(p + "post_ffw_norm.weight", HIDDEN)
        if ple:
            add(p + "inp_gate.weight", PER_LAYER, HIDDEN, T_Q8_0)
            add(p + "proj.weight", HIDDEN, PER_LAYER, T_Q8_0)
            norm(p + "post_norm.weight", HIDDEN)
        norm(p + "layer_output_scale.weight", 1)
    g.tensors.append(random_tensor(random, "output_norm.weight", [HIDDEN], T_F32, mean=1.0))
    factors = np.full(HEAD_DIM[False] // 2, 1e30, np.float32)
    factors[: len(factors) // 4] = 1
    rope = random_tensor(random, "rope_freqs.weight", [len(factors)], T_F32)
    rope.data = factors.tobytes()
    g.tensors.append(rope)


def sound_target() -> Gguf:
    g = Gguf()
    random = np.random.default_rng(1)
    put_architecture(g, "gemma4", PATTERN)
    g.put("gemma4.attention.shared_kv_layers", U32, SHARED)
    g.put("gemma4.embedding_length_per_layer_input", U32, PER_LAYER)
    g.put("gemma4.final_logit_softcapping", F32, 30.0)
    put_vocabulary(g)
    n = len(PATTERN)
    for name, cols, rows, kind in (
        ("token_embd.weight", HIDDEN, len(TOKENS), T_Q8_0),
        ("per_layer_token_embd.weight", n * PER_LAYER, len(TOKENS), T_Q4_0),
        ("per_layer_model_proj.weight", HIDDEN, n * PER_LAYER, T_F32),
    ):
        g.tensors.append(random_tensor(random, name, [cols, rows], kind))
    name = "per_layer_proj_norm.weight"
    g.tensors.append(random_tensor(random, name, [PER_LAYER], T_F32, mean=1.0))
    put_layers(g, random, PATTERN, n - SHARED, ple=True)
    return g


def sound_drafter() -> Gguf:
    g = Gguf()
    random = np.random.default_rng(2)
    pattern = [True, False]
    put_architecture(g, "gemma4-assistant", pattern)
    g.put("gemma4-assistant.embedding_length_out", U32, HIDDEN)
    g.put("gemma4-assistant.nextn_predict_layers", U32, len(pattern))
    head = "gemtp.ordered_head."
    g.put(head + "num_centroids", U32, CENTROIDS)
    g.put(head + "top_k", U32, 2)
    g.put_array(head + "centroids", F32, list(random.standard_normal(CENTROIDS * HIDDEN)))
    g.put_array(head + "token_order", I32, [int(t) for t in random.permutation(len(TOKENS))])
    for name, cols, rows, kind in (
        ("token_embd.weight", HIDDEN, len(TOKENS), T_Q8_0),
        ("nextn.pre_projection.weight", 2 * HIDDEN, HIDDEN, T_F32),
        ("nextn.post_projection.weight", HIDDEN, HIDDEN, T_Q8_0),
    ):
        g.tensors.append(random_tensor(random, name, [cols, rows], kind))
    put_layers(g, random, pattern, 0, ple=False)
    return g


def sound_experts() -> Gguf:
    """Makes the target with experts beside the dense feed-forward of every layer."""
    g = sound_target()
    random = np.random.default_rng(3)
    g.put("gemma4.expert_count", U32, EXPERTS)
    g.put("gemma4.expert_used_count", U32, 2)
    g.put("gemma4.expert_feed_forward_length", U32, FFN)
    for name, shape, kind in (
        ("ffn_gate_inp.weight", [HIDDEN, EXPERTS], T_F32),
        ("ffn_gate_inp.scale", [HIDDEN], T_F32),
        ("ffn_gate_up_exps.weight", [HIDDEN, 2 * FFN, EXPERTS], T_Q8_0),
        ("ffn_down_exps.weight", [FFN, HIDDEN, EXPERTS], T_Q4_0),
        ("ffn_down_exps.scale", [EXPERTS], T_F32),
        ("post_ffw_norm_1.weight", [HIDDEN], T_F32),
        ("pre_ffw_norm_2.weight", [HIDDEN], T_F32),
        ("post_ffw_norm_2.weight", [HIDDEN], T_F32),
    ):
        for i in range(len(PATTERN)):
            mean = 1.0 if len(shape) == 1 else 0.0
            g.tensors.append(random_tensor(random, f"blk.{i}.{name}", shape, kind, mean))
    return g
