"""Which tensors an architecture has: names in the checkpoint and in GGUF, and shapes.

Everything is checked here before a byte is written: missing, misshapen, unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import ModelError
from .checkpoint import FLOAT_TYPES, Checkpoint, StoredTensor
from .config import ModelConfig

CENTROIDS = "masked_embedding.centroids.weight"
TOKEN_ORDER = "masked_embedding.token_ordering"

# First path component (wrappers stripped) -> what it belongs to.
_MODALITIES = {
    "vision_tower": "vision",
    "vision_embedder": "vision",
    "embed_vision": "vision",
    "multi_modal_projector": "vision",
    "audio_tower": "audio",
    "audio_embedder": "audio",
    "embed_audio": "audio",
}


@dataclass(frozen=True)
class Spec:
    """A tensor that the architecture demands."""

    source: str  # canonical name in the checkpoint
    name: str  # in GGUF
    shape: tuple[int, ...]  # rows first, as in the checkpoint; GGUF stores it reversed
    matrix: bool  # may be quantized; everything else stays F32


@dataclass
class Plan:
    """Specs with the tensors that fill them, in file order."""

    tensors: list[tuple[Spec, StoredTensor]] = field(default_factory=list)
    centroids: StoredTensor | None = None  # [num_centroids, hidden]
    token_order: StoredTensor | None = None  # [vocab] integers
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> names as stored


def demanded(c: ModelConfig) -> Iterator[Spec]:
    """Every tensor of the architecture, in the order in which it is written."""

    def matrix(source: str, name: str, *shape: int) -> Spec:
        return Spec(source, name, shape, True)

    def plain(source: str, name: str, *shape: int) -> Spec:
        return Spec(source, name, shape, False)

    yield matrix("embed_tokens.weight", "token_embd.weight", c.vocab, c.hidden)
    if not c.tied:
        yield matrix("lm_head.weight", "output.weight", c.vocab, c.hidden)
    if c.ple_width:
        packed = c.layers * c.ple_width  # all layers side by side
        yield matrix(
            "embed_tokens_per_layer.weight", "per_layer_token_embd.weight", c.vocab, packed
        )
        yield matrix(
            "per_layer_model_projection.weight", "per_layer_model_proj.weight", packed, c.hidden
        )
        yield plain("per_layer_projection_norm.weight", "per_layer_proj_norm.weight", c.ple_width)
    for i in range(c.layers):
        hf, blk = f"layers.{i}.", f"blk.{i}."
        q_width, kv_width = c.heads * c.head_dim(i), c.kv_heads[i] * c.head_dim(i)
        ff = c.feed_forward[i]
        yield plain(f"{hf}input_layernorm.weight", f"{blk}attn_norm.weight", c.hidden)
        yield matrix(f"{hf}self_attn.q_proj.weight", f"{blk}attn_q.weight", q_width, c.hidden)
        yield plain(f"{hf}self_attn.q_norm.weight", f"{blk}attn_q_norm.weight", c.head_dim(i))
        if c.has_own_kv(i):
            yield matrix(f"{hf}self_attn.k_proj.weight", f"{blk}attn_k.weight", kv_width, c.hidden)
            yield plain(f"{hf}self_attn.k_norm.weight", f"{blk}attn_k_norm.weight", c.head_dim(i))
            if c.sliding[i] or not c.k_eq_v:
                yield matrix(
                    f"{hf}self_attn.v_proj.weight", f"{blk}attn_v.weight", kv_width, c.hidden
                )
        yield matrix(f"{hf}self_attn.o_proj.weight", f"{blk}attn_output.weight", c.hidden, q_width)
        yield plain(
            f"{hf}post_attention_layernorm.weight", f"{blk}post_attention_norm.weight", c.hidden
        )
        yield plain(f"{hf}pre_feedforward_layernorm.weight", f"{blk}ffn_norm.weight", c.hidden)
        yield matrix(f"{hf}mlp.gate_proj.weight", f"{blk}ffn_gate.weight", ff, c.hidden)
        yield matrix(f"{hf}mlp.up_proj.weight", f"{blk}ffn_up.weight", ff, c.hidden)
        yield matrix(f"{hf}mlp.down_proj.weight", f"{blk}ffn_down.weight", c.hidden, ff)
        yield plain(
            f"{hf}post_feedforward_layernorm.weight", f"{blk}post_ffw_norm.weight", c.hidden
        )
        if c.experts:
            e, ef = c.experts, c.expert_feed_forward
            yield plain(f"{hf}router.proj.weight", f"{blk}ffn_gate_inp.weight", e, c.hidden)
            yield plain(f"{hf}router.scale", f"{blk}ffn_gate_inp.scale", c.hidden)
            yield plain(
                f"{hf}post_feedforward_layernorm_1.weight", f"{blk}post_ffw_norm_1.weight", c.hidden
            )
            yield plain(
                f"{hf}pre_feedforward_layernorm_2.weight", f"{blk}pre_ffw_norm_2.weight", c.hidden
            )
            yield plain(
                f"{hf}post_feedforward_layernorm_2.weight", f"{blk}post_ffw_norm_2.weight", c.hidden
            )
            yield matrix(
                f"{hf}experts.gate_up_proj", f"{blk}ffn_gate_up_exps.weight", e, 2 * ef, c.hidden
            )
            yield matrix(f"{hf}experts.down_proj", f"{blk}ffn_down_exps.weight", e, c.hidden, ef)
            yield plain(f"{hf}router.per_expert_scale", f"{blk}ffn_down_exps.scale", e)
        if c.ple_width:
            yield matrix(
                f"{hf}per_layer_input_gate.weight", f"{blk}inp_gate.weight", c.ple_width, c.hidden
            )
            yield matrix(
                f"{hf}per_layer_projection.weight", f"{blk}proj.weight", c.hidden, c.ple_width
            )
            yield plain(f"{hf}post_per_layer_input_norm.weight", f"{blk}post_norm.weight", c.hidden)
        yield plain(f"{hf}layer_scalar", f"{blk}layer_output_scale.weight", 1)
    yield plain("norm.weight", "output_norm.weight", c.hidden)
    if c.drafter:
        yield matrix(
            "pre_projection.weight", "nextn.pre_projection.weight", c.hidden, 2 * c.backbone
        )
        yield matrix("post_projection.weight", "nextn.post_projection.weight", c.backbone, c.hidden)


def make_plan(config: ModelConfig, checkpoint: Checkpoint) -> Plan:
    """Matches demand and supply. ModelError names the first tensor, counts the rest."""
    plan = Plan()
    missing: list[str] = []
    misshapen: list[str] = []
    mistyped: list[str] = []
    used: set[str] = set()

    def take(source: str, shape: tuple[int, ...], types: tuple[str, ...]) -> StoredTensor | None:
        tensor = checkpoint.tensors.get(source)
        if tensor is None:
            top_level = ("lm_head", "pre_projection", "post_projection", "masked_embedding")
            prefix = "" if source.startswith(top_level) else config.tensor_prefix
            missing.append(prefix + source)
            return None
        used.add(source)
        if tensor.shape != shape:
            misshapen.append(
                f"{tensor.name} has shape {list(tensor.shape)} where the config asks for "
                f"{list(shape)}"
            )
        if tensor.dtype not in types:
            mistyped.append(f"{tensor.name} has type {tensor.dtype}, not {', '.join(types)}")
        return tensor

    for spec in demanded(config):
        tensor = take(spec.source, spec.shape, FLOAT_TYPES)
        if tensor is not None:
            plan.tensors.append((spec, tensor))
    if config.ordered_head is not None:
        shape = (config.ordered_head.num_centroids, config.hidden)
        plan.centroids = take(CENTROIDS, shape, FLOAT_TYPES)
        plan.token_order = take(TOKEN_ORDER, (config.vocab,), ("I64", "I32"))

    unknown: list[str] = []
    for name, tensor in checkpoint.tensors.items():
        if name in used:
            continue
        reason = _why_left_out(config, name)
        if reason is None:
            unknown.append(tensor.name)
        else:
            plan.left_out.setdefault(reason, []).append(tensor.name)

    where = f"{checkpoint.files[0].parent}"
    if missing:
        raise ModelError(
            f"{where}: tensor {missing[0]} is missing{_and_more(missing)}; {config.class_name} "
            f"with this config.json needs it."
        )
    if misshapen:
        raise ModelError(f"{where}: {misshapen[0]}{_and_more(misshapen)}.")
    if mistyped:
        raise ModelError(
            f"{where}: {mistyped[0]}{_and_more(mistyped)}; convert the original, unquantized "
            f"checkpoint."
        )
    if unknown:
        raise ModelError(
            f"{where}: tensor {unknown[0]} is unknown{_and_more(unknown)}; {config.class_name} "
            f"with this config.json has none of that name."
        )
    return plan


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _why_left_out(c: ModelConfig, name: str) -> str | None:
    """The reason why a tensor may be present and unused, or None."""
    modality = _MODALITIES.get(name.split(".", 1)[0])
    if modality is not None:
        return modality
    if name == "lm_head.weight" and c.tied:
        return "tied head"
    if name in (CENTROIDS, TOKEN_ORDER) and c.drafter:
        return "ordered head (switched off)"
    if "rotary_emb." in name and name.endswith("inv_freq"):
        return "RoPE table"
    match = re.match(r"layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\.weight$", name)
    if match and int(match[1]) < c.layers:
        layer = int(match[1])
        if not c.has_own_kv(layer):
            return "shared key/value"
        if match[2] == "v_proj" and c.k_eq_v and not c.sliding[layer]:
            return "shared key/value"
    return None
