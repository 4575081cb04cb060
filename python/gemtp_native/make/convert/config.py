"""`config.json` of a Hugging Face folder, resolved to the figures that the weights follow.

Defaults for missing keys are those of transformers' configuration classes. Two spellings of head
sizes are in circulation: `global_head_dim` with `num_global_key_value_heads` (older), and
`per_layer_config` (newer), a map from layer index to what differs there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.input_file import read_input
from ...base.whole_number import whole_number
from ...errors import FileError, ModelError
from ...gguf.impostor import refuse_impostor

SLIDING = "sliding_attention"
FULL = "full_attention"

# architectures[0] -> (is drafter, is of the unified family)
_CLASSES = {
    "Gemma4ForConditionalGeneration": (False, False),
    "Gemma4ForCausalLM": (False, False),
    "Gemma4UnifiedForConditionalGeneration": (False, True),
    "Gemma4UnifiedForCausalLM": (False, True),
    "Gemma4AssistantForCausalLM": (True, False),
    "Gemma4UnifiedAssistantForCausalLM": (True, True),
}
_MODEL_TYPES = {
    "gemma4": (False, False),
    "gemma4_text": (False, False),
    "gemma4_unified": (False, True),
    "gemma4_unified_text": (False, True),
    "gemma4_assistant": (True, False),
    "gemma4_unified_assistant": (True, True),
}
# Keys that other architectures use, or that Gemma 4 uses in one way only, with the values besides
# null that change nothing. A model with another value would need a different computation.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "activation_sparsity_pattern": (0,),
    "altup_active_idx": (0,),
    "altup_num_inputs": (0, 1),
    "attention_bias": (False,),
    "attention_chunk_size": (0,),
    "attention_logit_cap": (0,),
    "attention_multiplier": (1,),
    "attention_scale": (1,),
    "attention_sinks": (False,),
    "attn_logit_softcapping": (0,),
    "attn_temperature_tuning": (False,),
    "decoder_sparse_step": (1,),
    "embedding_multiplier": (1,),
    "expert_weights_scale": (1,),
    "first_k_dense_replace": (0,),
    "hidden_act": ("gelu_pytorch_tanh",),
    "hidden_activation": ("gelu_pytorch_tanh",),
    "is_causal": (True,),
    "laurel_rank": (0,),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "mlp_bias": (False,),
    "mlp_only_layers": (),
    "moe_layer_freq": (1,),
    "n_group": (0, 1),
    "n_shared_experts": (0,),
    "no_rope_layers": (1,),  # 1: a layer that has RoPE
    "norm_topk_prob": (True,),
    "normalize_embeddings": (False,),
    "num_shared_experts": (0,),
    "qk_norm": (True,),
    "qkv_bias": (False,),
    "query_pre_attn_scalar": (1,),
    "residual_multiplier": (1,),
    "rope_interleave": (False,),
    "routed_scaling_factor": (1,),
    "router_logit_softcapping": (0,),
    "scale_embedding": (True,),
    "scoring_func": ("softmax",),
    "topk_group": (0, 1),
    "use_bidirectional_attention": (False, "vision"),  # "vision": between images' tokens
    "use_qk_norm": (True,),
    "use_sliding_window": (True,),
}
# The same for the objects in `rope_parameters` and in the older `rope_scaling`, whose type and
# sizes have checks of their own. Keys that only some types use (beta_fast, …) are covered by the
# type.
NEUTRAL_ROPE: dict[str, tuple[Any, ...]] = {
    "alpha": (0, 1),
    "attention_factor": (1,),
    "attn_factor": (1,),
    "factor": (1,),
    "long_factor": (1,),
    "mrope_section": (0,),
    "mscale": (1,),
    "mscale_all_dim": (0, 1),
    "short_factor": (1,),
}
# Keys of Gemma 4 that are read here, or that are only for training, images and sound.
_KNOWN = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "global_head_dim", "num_global_key_value_heads",
    "per_layer_config", "layer_types", "sliding_window", "sliding_window_pattern",
    "_sliding_window_pattern", "rms_norm_eps", "layer_norm_eps", "max_position_embeddings",
    "hidden_size_per_layer_input", "vocab_size_per_layer_input", "tie_word_embeddings",
    "num_kv_shared_layers", "use_double_wide_mlp", "enable_moe_block", "num_experts",
    "top_k_experts", "moe_intermediate_size", "attention_k_eq_v", "final_logit_softcapping",
    "rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq", "swa_rope_theta",
    "head_dim_swa", "partial_rotary_factor", "backbone_hidden_size", "use_ordered_embeddings",
    "num_centroids", "centroid_intermediate_top_k", "attention_dropout", "_attn_implementation",
    "_attn_implementation_autoset", "attn_implementation", "output_attentions",
    "router_aux_loss_coef", "embedding_dropout", "hidden_dropout", "expert_intermediate_size",
    "vision_soft_tokens_per_image", "chunk_size_feed_forward", "pruned_heads",
}  # fmt: skip
# Words in names of keys by which computations differ.
_COMPUTES = re.compile(
    r"act(ivation)?s?|att(entio)?n|bias|cap(ping)?|clip|experts?|factor|gate|heads?|layers?|logits?"
    r"|moe|multiplier|norm|rope|rotary|router|scal(e|ing)|sinks?|soft(cap|max)|sparsity|temperature"
    r"|theta|window|yarn|alibi|position|embeddings?"
)
_DEFAULT_ROPE = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}

# Key of generation_config.json, name after general.sampling., smallest and largest value.
_SAMPLING = (
    ("temperature", "temp", 0, 1e30),
    ("top_k", "top_k", -1, 2**31 - 1),
    ("top_p", "top_p", 0, 1),
    ("min_p", "min_p", 0, 0.999999),
    ("repetition_penalty", "penalty_repeat", 1e-30, 1e30),
)


@dataclass(frozen=True)
class OrderedHead:
    """Clustered output head of a drafter: `num_centroids` equal clusters, of which the best `top_k`
    are used."""

    num_centroids: int
    top_k: int


@dataclass(frozen=True)
class ModelConfig:
    """One target or drafter. Lists have one entry per layer."""

    class_name: str
    drafter: bool
    tensor_prefix: str  # what transformers puts before "layers.0…", for messages
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: list[int]
    sliding: list[bool]
    head_dim_sliding: int
    head_dim_full: int
    feed_forward: list[int]
    shared_kv_layers: int
    k_eq_v: bool  # full layers have no v_proj
    window: int
    rms_eps: float
    softcap: float | None
    context_length: int
    rope_base_sliding: float
    rope_base_full: float
    rope_factor_full: float  # fraction of the frequency pairs that rotate
    ple_width: int  # 0: no per-layer embeddings
    experts: int  # 0: no mixture of experts
    experts_used: int
    expert_feed_forward: int
    tied: bool
    backbone: int  # drafter: hidden size of its target; 0 otherwise
    ordered_head: OrderedHead | None
    token_ids: dict[str, int]  # "bos", "eos", "pad" as far as the config names them

    @property
    def arch(self) -> str:
        return "gemma4-assistant" if self.drafter else "gemma4"

    def head_dim(self, layer: int) -> int:
        return self.head_dim_sliding if self.sliding[layer] else self.head_dim_full

    def has_own_kv(self, layer: int) -> bool:
        return layer < self.layers - self.shared_kv_layers


def read_json(path: Path) -> Any:
    """Parses a JSON file in UTF-8. Raises FileError for everything that can be wrong with it."""
    try:
        value = json.loads(read_input(path).decode("utf-8"))
        if isinstance(value, dict) and list(value) == ["error"]:  # what a server says instead
            refuse_impostor(path)
        return value
    except (ValueError, RecursionError) as e:
        refuse_impostor(path)
        raise FileError(f"{path} is not valid JSON: {e}.") from e


def read_json_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise FileError(f"{path} must hold a JSON object, not a {type(value).__name__}.")
    return value


class _Values:
    """Typed look-ups in one JSON object, with the class default for missing keys. Null is a wrong
    value, unless `nullable` says that transformers treats it like the default."""

    def __init__(self, path: Path, values: dict[str, Any]):
        self.path = path
        self.values = values

    def bad(self, key: str, expected: str) -> FileError:
        return FileError(
            f"{self.path}: '{key}' is {_shown(self.values.get(key))}, {expected} is expected."
        )

    def _value(self, key: str, default: Any, nullable: bool) -> Any:
        value: Any = self.values.get(key, default)
        return default if nullable and value is None else value

    def integer(
        self, key: str, default: int | None, low: int, high: int, nullable: bool = False
    ) -> int:
        value = self._value(key, default, nullable)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.bad(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float | None, low: float, high: float) -> float:
        value: Any = self.values.get(key, default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise self.bad(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def boolean(self, key: str, default: bool, nullable: bool = False) -> bool:
        value = self._value(key, default, nullable)
        if not isinstance(value, bool):
            raise self.bad(key, "true or false")
        return value

    def demand_same(self, key: str, other: str, *same: float) -> None:
        """Checks another spelling of `other`: it must be missing or have one of these values."""
        if self.values.get(key) not in (None, *same):
            raise self.bad(key, f"{same[0]:g} as in '{other}', or nothing,")

    def obj(self, key: str) -> dict[str, Any] | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.bad(key, "an object")
        return value


def read_config(model_dir: Path) -> ModelConfig:
    """Reads and checks `config.json`. Raises FileError for a bad value, and ModelError for an
    unsupported one."""
    path = model_dir / "config.json"
    if not path.is_file():
        refuse_adapter(model_dir)
        raise FileError(
            f"{model_dir} holds no config.json: give the folder of a Hugging Face checkpoint."
        )
    root = read_json_object(path)
    class_name, drafter, unified = _identify(path, root)
    top = _Values(path, root)
    nested = top.obj("text_config")
    text = _Values(path, nested if nested is not None else root)
    _refuse_unsupported(path, root, text.values)

    layers = text.integer("num_hidden_layers", 30, 1, 4096)
    sliding = _layer_types(text, layers)
    heads = text.integer("num_attention_heads", 8, 1, 65536)
    shared = text.integer("num_kv_shared_layers", 0, 0, layers, nullable=True)
    if drafter:
        shared = shared or layers  # a drafter has no keys and values of its own
        if shared != layers:
            raise ModelError(
                f"{path}: a drafter shares the keys and values of all {layers} layers, "
                f"'num_kv_shared_layers' is {shared}."
            )
    else:
        _check_sharing(path, sliding, shared)
    head_dims, kv_heads = _head_sizes(text, layers, sliding)
    for layer, count in enumerate(kv_heads):
        if heads % count:
            raise ModelError(
                f"{path}: {heads} attention heads do not divide evenly among {count} key/value "
                f"heads (layer {layer})."
            )

    width = text.integer("intermediate_size", 9216, 1, 1 << 24)
    wide = text.boolean("use_double_wide_mlp", False, nullable=True) and 0 < shared < layers
    feed_forward = [width * 2 if wide and i >= layers - shared else width for i in range(layers)]
    moe = text.boolean("enable_moe_block", False, nullable=True)
    if moe and unified:
        raise ModelError(f"{path}: 'enable_moe_block' is true; {class_name} has no experts.")
    experts = text.integer("num_experts", None, 1, 65536) if moe else 0
    ple_default = 0 if unified or drafter else 256
    ple_width = text.integer("hidden_size_per_layer_input", ple_default, 0, 1 << 20)
    if drafter and (ple_width or moe or text.boolean("use_double_wide_mlp", False, nullable=True)):
        raise ModelError(
            f"{path}: a drafter has no per-layer embeddings, no experts and no double-wide "
            f"feed-forward, this config asks for one of them."
        )
    vocab = text.integer("vocab_size", 262_144, 1, 1 << 26)
    if ple_width and text.integer("vocab_size_per_layer_input", 262_144, 1, 1 << 26) != vocab:
        raise ModelError(
            f"{path}: 'vocab_size_per_layer_input' differs from 'vocab_size' ({vocab}), which GGUF "
            f"cannot express."
        )
    rope = _rope(text, any(sliding))
    softcap = text.values.get("final_logit_softcapping")
    rms_eps = text.number("rms_norm_eps", 1e-6, 1e-30, 1)
    text.demand_same("layer_norm_eps", "rms_norm_eps", rms_eps)
    text.demand_same("head_dim_swa", "head_dim", head_dims[0])
    window = 1024 if unified else 512
    return ModelConfig(
        class_name=class_name,
        drafter=drafter,
        tensor_prefix="model.language_model." if "Conditional" in class_name else "model.",
        vocab=vocab,
        hidden=text.integer("hidden_size", 2304, 1, 1 << 20),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        sliding=sliding,
        head_dim_sliding=head_dims[0],
        head_dim_full=head_dims[1],
        feed_forward=feed_forward,
        shared_kv_layers=shared,
        k_eq_v=text.boolean("attention_k_eq_v", False, nullable=True),
        window=text.integer("sliding_window", window, 1, 1 << 30, nullable=not any(sliding)),
        rms_eps=rms_eps,
        softcap=None
        if softcap is None
        else text.number("final_logit_softcapping", None, 1e-6, 1e6),
        context_length=text.integer(
            "max_position_embeddings", 262_144 if unified else 131_072, 1, 1 << 31
        ),
        rope_base_sliding=rope[0],
        rope_base_full=rope[1],
        rope_factor_full=rope[2],
        ple_width=ple_width,
        experts=experts,
        experts_used=text.integer("top_k_experts", None, 1, experts) if moe else 0,
        expert_feed_forward=text.integer("moe_intermediate_size", None, 1, 1 << 24) if moe else 0,
        tied=top.boolean("tie_word_embeddings", True),
        backbone=(
            top.integer("backbone_hidden_size", 3840 if unified else 1536, 1, 1 << 20)
            if drafter
            else 0
        ),
        ordered_head=_ordered_head(top, vocab) if drafter else None,
        token_ids=_token_ids(root, text.values, vocab),
    )


def unknown_keys(model_dir: Path) -> list[str]:
    """Returns the keys of `config.json` that are not of Gemma 4 and, by their names, may be about
    what is computed."""
    root = read_json_object(model_dir / "config.json")
    text = root.get("text_config")
    both = {**root, **(text if isinstance(text, dict) else {})}
    return [
        key
        for key, value in both.items()
        if value not in (None, [], {})
        and key not in _KNOWN
        and key not in NEUTRAL
        and not key.endswith(("_config", "_token_id", "_token_index"))
        and any(_COMPUTES.fullmatch(word) for word in re.split(r"[_\d]+", key.lower()))
    ]


def refuse_adapter(model_dir: Path) -> None:
    """Raises ModelError for a folder that holds an adapter instead of a model."""
    if (model_dir / "adapter_config.json").is_file():
        raise ModelError(
            f"{model_dir} holds an adapter, no model: merge it into its model first "
            f"(merge_and_unload of PEFT) and convert what that saves."
        )


def read_sampling(model_dir: Path) -> dict[str, float]:
    """Returns the options that `generation_config.json` recommends, by llama.cpp's names: none if
    it is missing or asks for greedy decoding. Raises FileError for a bad value."""
    path = model_dir / "generation_config.json"
    if not path.is_file():
        return {}
    found = _Values(path, read_json_object(path))
    if not found.boolean("do_sample", True, nullable=True):
        return {}
    out: dict[str, float] = {}
    for key, name, low, high in _SAMPLING:
        value = found.values.get(key)
        if value is None:
            continue
        if key == "top_k":
            out[name] = found.integer(key, None, -1, 2**31 - 1)
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise found.bad(key, "a number")
        elif not low <= value <= high:
            raise found.bad(key, f"a number from {low:g} to {high:g}")
        else:
            out[name] = float(value)
    return out


def _identify(path: Path, root: dict[str, Any]) -> tuple[str, bool, bool]:
    names = root.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    if name in _CLASSES:
        return (name, *_CLASSES[name])
    kind = root.get("model_type")
    if name is None and isinstance(kind, str) and kind in _MODEL_TYPES:
        flags = _MODEL_TYPES[kind]
        nested = kind in ("gemma4", "gemma4_unified")
        for known, known_flags in _CLASSES.items():
            if known_flags == flags and ("Conditional" in known) == nested:
                return (known, *flags)
    raise FileError(
        f"{path}: architecture {json.dumps(name or kind)} is not one of {', '.join(_CLASSES)}."
    )


def _refuse_unsupported(path: Path, *objects: dict[str, Any]) -> None:
    for values in objects:
        for key in ("quantization_config", "quantization"):  # the second is MLX's
            if value := values.get(key):
                method = value.get("quant_method") if isinstance(value, dict) else None
                raise ModelError(
                    f"{path}: '{key}' says that the weights are quantized already"
                    f"{f' ({method})' if isinstance(method, str) else ''}; convert the original, "
                    f"unquantized checkpoint."
                )
        _demand_neutral(path, "", values, NEUTRAL)
        scaling = values.get("rope_scaling")
        if scaling is None or scaling == {}:
            continue
        if not isinstance(scaling, dict):
            raise FileError(f"{path}: 'rope_scaling' is {_shown(scaling)}, an object is expected.")
        for key in ("rope_type", "type"):
            if scaling.get(key) not in (None, "default", "linear"):  # linear: by the factor
                raise _would_change(path, f"rope_scaling.{key}", scaling[key])
        _demand_neutral(path, "rope_scaling.", scaling, NEUTRAL_ROPE)


def _demand_neutral(
    path: Path, where: str, values: dict[str, Any], neutral: dict[str, tuple[Any, ...]]
) -> None:
    """Raises ModelError for a value (or an element of a list) that is neither null nor neutral."""
    for key, allowed in neutral.items():
        value = values.get(key)
        if any(
            item is not None
            and not any(item == a and isinstance(item, str) == isinstance(a, str) for a in allowed)
            for item in (value if isinstance(value, list) else [value])
        ):
            raise _would_change(path, where + key, value)


def _would_change(path: Path, key: str, value: Any) -> ModelError:
    return ModelError(
        f"{path}: '{key}' is {_shown(value)}, which would change what is computed and is not of "
        f"Gemma 4; convert the checkpoint with the config.json it was published with."
    )


def _shown(value: Any) -> str:
    return json.dumps(value)[:80]


def _layer_types(text: _Values, layers: int) -> list[bool]:
    """Returns True for each sliding layer. Without a list, five sliding layers alternate with a
    full one; the last layer is always full."""
    types = text.values.get("layer_types")
    if types is None:
        sliding = [(i + 1) % 6 != 0 for i in range(layers)]
    else:
        if (
            not isinstance(types, list)
            or len(types) != layers
            or any(t not in (SLIDING, FULL) for t in types)
        ):
            raise text.bad("layer_types", f'a list of {layers} times "{SLIDING}" or "{FULL}"')
        sliding = [t == SLIDING for t in types]
    sliding[-1] = False
    for key in (
        "sliding_window_pattern",
        "_sliding_window_pattern",
    ):  # one layer in so many is full
        period = text.values.get(key)
        if period is None:
            continue
        period = text.integer(key, None, 1, 1 << 30)
        if any(s != ((i + 1) % period != 0) for i, s in enumerate(sliding[:-1])):
            raise text.bad(key, "what the types of the layers say, or nothing,")
    return sliding


def _check_sharing(path: Path, sliding: list[bool], shared: int) -> None:
    own, others = sliding[: len(sliding) - shared], sliding[len(sliding) - shared :]
    for kind in set(others):
        if kind not in own:
            raise ModelError(
                f"{path}: the last {shared} layers share the keys and values of earlier layers, "
                f"but no earlier layer is of type {SLIDING if kind else FULL}."
            )


def _head_sizes(
    text: _Values, layers: int, sliding: list[bool]
) -> tuple[tuple[int, int], list[int]]:
    """Returns ((head_dim of sliding layers, of full layers), key/value heads per layer)."""
    head_dim = text.integer("head_dim", 256, 2, 65536)
    kv = text.integer("num_key_value_heads", 4, 1, 65536)
    overrides: dict[int, dict[str, Any]] = {}
    if "per_layer_config" in text.values:
        for key, value in (text.obj("per_layer_config") or {}).items():
            layer = whole_number(key)
            if layer is None or layer >= layers or not isinstance(value, dict):
                raise text.bad(
                    "per_layer_config", f"a map from layer (0 to {layers - 1}) to object"
                )
            overrides[layer] = value
    else:
        full: dict[str, Any] = {"head_dim": text.integer("global_head_dim", 512, 2, 65536)}
        full_kv = text.values.get("num_global_key_value_heads")
        if full_kv is not None and text.boolean("attention_k_eq_v", False, nullable=True):
            full["num_key_value_heads"] = full_kv
        overrides = {i: full for i in range(layers) if not sliding[i]}

    dims, kv_heads = [], []
    for layer in range(layers):
        own = _Values(text.path, overrides.get(layer, {}))
        for key in own.values:
            if key not in ("head_dim", "num_key_value_heads"):
                raise ModelError(
                    f"{text.path}: 'per_layer_config' changes '{key}' in layer {layer}; only "
                    f"head_dim and num_key_value_heads may differ between layers."
                )
        dims.append(own.integer("head_dim", head_dim, 2, 65536))
        kv_heads.append(own.integer("num_key_value_heads", kv, 1, 65536))
    by_type: list[int] = []
    for kind in (True, False):
        found = {d for d, s in zip(dims, sliding, strict=True) if s == kind} or {head_dim}
        if len(found) > 1 or any(d % 2 for d in found):
            raise ModelError(
                f"{text.path}: {SLIDING if kind else FULL} layers have head sizes {sorted(found)}; "
                f"one even size per layer type is expected."
            )
        by_type.append(found.pop())
    return (by_type[0], by_type[1]), kv_heads


def _rope(text: _Values, any_sliding: bool) -> tuple[float, float, float]:
    """Returns (theta of sliding layers, theta of full layers, rotating fraction of full layers)."""
    parameters = text.obj("rope_parameters") or _DEFAULT_ROPE
    _demand_neutral(text.path, "rope_parameters.", parameters, NEUTRAL_ROPE)  # for both types

    def of(kind: str, types: tuple[str, ...]) -> _Values:
        values = parameters.get(kind)
        if not isinstance(values, dict):
            raise FileError(f"{text.path}: 'rope_parameters' has no object for '{kind}'.")
        if values.get("rope_type", "default") not in types:
            raise ModelError(
                f"{text.path}: the RoPE type of '{kind}' is {json.dumps(values.get('rope_type'))}; "
                f"{' or '.join(types)} is supported."
            )
        _demand_neutral(text.path, f"rope_parameters.{kind}.", values, NEUTRAL_ROPE)
        return _Values(text.path, values)

    def theta(values: _Values) -> float:
        return values.number("rope_theta", text.values.get("rope_theta"), 1, 1e12)

    full = of(FULL, ("proportional", "default"))
    fraction = full.number("partial_rotary_factor", 1.0, 0, 1)
    if full.values.get("rope_type", "default") == "default" and fraction != 1.0:
        raise full.bad("partial_rotary_factor", "1, as RoPE of the type default rotates all,")
    theta_full, theta_sliding = theta(full), 10_000.0
    if any_sliding:
        sliding = of(SLIDING, ("default",))
        if sliding.number("partial_rotary_factor", 1.0, 0, 1) != 1.0:
            raise sliding.bad(
                "partial_rotary_factor", "1, as RoPE of the type default rotates all,"
            )
        theta_sliding = theta(sliding)
    # Older spellings, and those of other programs, beside it.
    text.demand_same("rope_theta", "rope_parameters", theta_full, theta_sliding)
    text.demand_same("rope_local_base_freq", "rope_parameters", theta_sliding)
    text.demand_same("swa_rope_theta", "rope_parameters", theta_sliding)
    text.demand_same("partial_rotary_factor", "rope_parameters", fraction)
    return theta_sliding, theta_full, fraction


def _ordered_head(top: _Values, vocab: int) -> OrderedHead | None:
    if not top.boolean("use_ordered_embeddings", False, nullable=True):
        return None
    count = top.integer("num_centroids", 2048, 1, vocab)
    if vocab % count:
        raise ModelError(
            f"{top.path}: {vocab} tokens do not divide evenly among {count} centroids of the "
            f"ordered head."
        )
    return OrderedHead(count, top.integer("centroid_intermediate_top_k", 32, 1, count))


def _token_ids(root: dict[str, Any], text: dict[str, Any], vocab: int) -> dict[str, int]:
    ids = {}
    for name in ("bos", "eos", "pad"):
        for values in (text, root):
            value = values.get(f"{name}_token_id")
            if isinstance(value, list) and value:
                value = value[0]
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocab:
                ids[name] = value
                break
    return ids
