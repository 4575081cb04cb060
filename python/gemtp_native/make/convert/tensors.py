"""Which tensors an architecture has: names in the checkpoint and in GGUF, and shapes.

Everything is checked here before a byte is written: missing, misshapen, unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ...errors import ModelError
from .checkpoint import FLOAT_TYPES, Checkpoint, StoredTensor
from .config import ModelConfig

EMBEDDING = "embed_tokens.weight"
HEAD = "lm_head.weight"
CENTROIDS = "masked_embedding.centroids.weight"
TOKEN_ORDER = "masked_embedding.token_ordering"

# Parts of tensor names that reveal a checkpoint other than the model's own.
_FOREIGN = {
    r"^base_model\.model\.|\.lora_|\.base_layer\.|\.modules_to_save\.": (
        "is of an adapter; merge it into its model first (merge_and_unload of PEFT) and convert "
        "what that saves"
    ),
    r"(^|\.)(_forward_|_fsdp_wrapped_|_checkpoint_wrapped_)?module\.": (
        "was saved from inside a wrapper for several devices; save the model itself "
        "(model.module.save_pretrained) and convert that"
    ),
    r"(^|\.)_orig_mod\.": (
        "was saved from a compiled model; save the model itself "
        "(model._orig_mod.save_pretrained) and convert that"
    ),
    r"\.(absmax|nested_absmax|quant_map|nested_quant_map|SCB|quant_state\..*)$": (
        "is of a checkpoint that bitsandbytes has quantized; convert the original, unquantized one"
    ),
    r"\.(scales|biases)$": (
        "is of a checkpoint that MLX has quantized; convert the original, unquantized one"
    ),
    r"\.parametrizations\.": (
        "is of a parametrized weight; remove the parametrization (torch.nn.utils.parametrize), "
        "save the model and convert that"
    ),
    r"\.(qweight(_type)?|qzeros|g_idx|perm|trellis|suh|svh|scales_and_zp|weight_shape"
    r"|weight_zero_point|weight_(global_)?scale(_inv|_2)?|(input|output|q|k|v|kv)_scale"
    r"|weight_packed|weight_format)$": (
        "is of a quantized checkpoint; convert the original, unquantized one"
    ),
}

# First component of the name (wrappers stripped) -> the part of the model it belongs to.
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
    """A tensor that the architecture requires."""

    source: str  # canonical name in the checkpoint
    name: str  # in GGUF
    shape: tuple[int, ...]  # rows first, as in the checkpoint; GGUF stores it reversed
    matrix: bool  # may be quantized; everything else stays F32


@dataclass
class Plan:
    """The required tensors with their sources, in file order."""

    tensors: list[tuple[Spec, StoredTensor]] = field(default_factory=list)
    centroids: StoredTensor | None = None  # [num_centroids, hidden]
    token_order: StoredTensor | None = None  # [vocab] integers
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> names as stored
    notes: list[str] = field(default_factory=list)


def demanded(c: ModelConfig) -> Iterator[Spec]:
    """Returns every tensor of the architecture, in the order in which they are written."""

    def matrix(source: str, name: str, *shape: int) -> Spec:
        return Spec(source, name, shape, True)

    def plain(source: str, name: str, *shape: int) -> Spec:
        return Spec(source, name, shape, False)

    yield matrix(EMBEDDING, "token_embd.weight", c.vocab, c.hidden)
    if not c.tied:
        yield matrix(HEAD, "output.weight", c.vocab, c.hidden)
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
    """Matches required and stored tensors. The ModelError names the first problem and counts the
    rest."""
    _refuse_foreign(checkpoint)
    plan = Plan()
    config = _as_tied(config, checkpoint, plan.notes)
    missing: list[str] = []
    misshapen: list[str] = []
    mistyped: list[str] = []
    used: set[str] = set()

    def take(source: str, shape: tuple[int, ...], types: tuple[str, ...]) -> StoredTensor | None:
        if source == EMBEDDING and config.tied and source not in checkpoint.tensors:
            source = HEAD if HEAD in checkpoint.tensors else source
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
        reason = _why_left_out(config, checkpoint, name)
        if reason is None:
            unknown.append(tensor.name)
        else:
            plan.left_out.setdefault(reason, []).append(tensor.name)

    if checkpoint.copies:
        plan.left_out["copy"] = [t.name for t in checkpoint.copies]

    where = f"{checkpoint.files[0].parent}"
    if missing:
        wrapper = _wrapper(missing[0], unknown)
        if wrapper:
            raise ModelError(
                f"{where}: the names of its tensors begin with {wrapper}, those of a model around "
                f"the model; save the model itself and convert that."
            )
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


def _wrapper(missing: str, unknown: list[str]) -> str:
    """Returns what stands before the name of a missing tensor in that of an unknown one."""
    return next((n.removesuffix(missing) for n in unknown if n.endswith("." + missing)), "")


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _refuse_foreign(checkpoint: Checkpoint) -> None:
    for tensor in checkpoint.tensors.values():
        for pattern, what in _FOREIGN.items():
            if re.search(pattern, tensor.name):
                raise ModelError(f"{tensor.file}: tensor {tensor.name} {what}.")


def _as_tied(c: ModelConfig, checkpoint: Checkpoint, notes: list[str]) -> ModelConfig:
    """Returns the config with a tied head if the tensors are equal, as transformers decides it:
    different tensors are not tied, whatever config.json says."""
    embedding, head = (checkpoint.tensors.get(name) for name in (EMBEDDING, HEAD))
    if not c.tied or embedding is None or head is None or checkpoint.equal(embedding, head):
        return c
    notes.append(
        f"{head.name} differs from {embedding.name}, though 'tie_word_embeddings' is true: it is "
        f"written as the head"
    )
    return replace(c, tied=False)


def _why_left_out(c: ModelConfig, checkpoint: Checkpoint, name: str) -> str | None:
    """Returns why a tensor may be present without being used; None: it may not."""
    modality = _MODALITIES.get(name.split(".", 1)[0])
    if modality is not None:
        return modality
    if name == HEAD and c.tied:
        return "tied head"
    if name in (CENTROIDS, TOKEN_ORDER) and c.drafter:
        return "ordered head (switched off)"
    if "rotary_emb." in name and name.endswith("inv_freq"):
        _check_rope_table(c, checkpoint, name)
        return "RoPE table"
    match = re.match(r"layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\.weight$", name)
    if match and int(match[1]) < c.layers:
        layer = int(match[1])
        if not c.has_own_kv(layer):  # nothing reads them, in transformers either
            return "shared key/value"
        if match[2] == "v_proj" and c.k_eq_v and not c.sliding[layer]:
            keys = checkpoint.tensors.get(name.replace("v_proj", "k_proj"))
            tensor = checkpoint.tensors[name]
            if keys is not None and not checkpoint.equal(keys, tensor):
                raise ModelError(
                    f"{tensor.file}: {tensor.name} differs from {keys.name}, though "
                    f"'attention_k_eq_v' is true: config.json is not that of these weights."
                )
            return "shared key/value"
    return None


def _check_rope_table(c: ModelConfig, checkpoint: Checkpoint, name: str) -> None:
    """Raises ModelError for frequencies that differ from the config's."""
    tensor = checkpoint.tensors[name]
    given = np.array([])
    if tensor.dtype in FLOAT_TYPES:
        given = checkpoint.read(tensor, 0, tensor.count)
    tables = {
        "sliding": _frequencies(c.rope_base_sliding, c.head_dim_sliding, 1.0),
        "full": _frequencies(c.rope_base_full, c.head_dim_full, c.rope_factor_full),
    }
    named = [table for kind, table in tables.items() if f"{kind}_attention" in name]
    # Compared with the precision of bfloat16, whether rounded or truncated.
    if not any(
        table.shape == given.shape and np.allclose(given, table, rtol=2.0**-7, atol=0)
        for table in named or tables.values()
    ):
        raise ModelError(
            f"{tensor.file}: {tensor.name} holds other frequencies than config.json gives: it is "
            f"not that of these weights."
        )


def _frequencies(base: float, head_dim: int, fraction: float) -> np.ndarray:
    """Returns the radians per token, [head_dim / 2]."""
    pairs = np.arange(head_dim // 2)
    rotating = pairs < int(fraction * head_dim // 2)
    return np.where(rotating, base ** (-2.0 * pairs / head_dim), 0.0)
