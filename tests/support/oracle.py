"""The oracle: Hugging Face transformers on small random checkpoints of every Gemma 4 architecture.

Needs the [oracle] extra. Everything is float32 with eager attention, so that differences from our
own numbers are only rounding errors of float32.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    Gemma4AssistantConfig,
    Gemma4AssistantForCausalLM,
    Gemma4Config,
    Gemma4ForCausalLM,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    Gemma4UnifiedAssistantConfig,
    Gemma4UnifiedAssistantForCausalLM,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
)
from transformers.models.gemma4_unified.configuration_gemma4_unified import Gemma4UnifiedTextConfig
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForCausalLM

MARGIN = 1e-3  # least distance of every discrete decision from a tie, in its own units
ROUNDING = 3e-6  # largest float32 error, relative to a row's norm


@dataclass(frozen=True)
class Shape:
    """One architecture at toy size. Every matmul's K is a multiple of 32, a quantization block."""

    vocab: int
    pattern: str  # one letter per layer: s(liding) or f(ull)
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    kv_heads_full: int | None  # None: as in the sliding layers
    head_dim: int
    head_dim_full: int
    window: int
    shared: int = 0  # layers that read an earlier layer's K/V
    wide: bool = False  # double-wide feed-forward in those
    per_layer: int = 0  # width of the per-layer embeddings
    k_eq_v: bool = False
    experts: int = 0
    experts_used: int = 0
    expert_ffn: int = 0
    unified: bool = False
    # drafter
    draft_hidden: int = 32
    draft_ffn: int = 64
    draft_heads: int = 4
    centroids: int = 0  # 0: plain head
    centroids_used: int = 0


# The structure of each released model; only the sizes are small. Vocabularies that are not a
# multiple of 16 leave the last tile of output rows partly filled.
SHAPES = {
    "e2b": Shape(
        vocab=288, pattern="ssfssf", hidden=32, ffn=64, heads=4, kv_heads=1, kv_heads_full=None,
        head_dim=16, head_dim_full=32, window=8, shared=3, wide=True, per_layer=32,
        centroids=24, centroids_used=5,
    ),
    "e4b": Shape(
        vocab=290, pattern="ssfsf", hidden=32, ffn=64, heads=4, kv_heads=2, kv_heads_full=None,
        head_dim=16, head_dim_full=32, window=12, shared=2, per_layer=32,
        centroids=29, centroids_used=4,
    ),
    "12b": Shape(
        vocab=277, pattern="sssf", hidden=64, ffn=96, heads=4, kv_heads=2, kv_heads_full=1,
        head_dim=16, head_dim_full=32, window=16, k_eq_v=True, unified=True,
        draft_ffn=32,
    ),
    "26b-a4b": Shape(
        vocab=272, pattern="ssf", hidden=64, ffn=32, heads=4, kv_heads=4, kv_heads_full=2,
        head_dim=16, head_dim_full=32, window=10, k_eq_v=True,
        experts=5, experts_used=2, expert_ffn=32, draft_ffn=32,
    ),
    "31b": Shape(
        vocab=275, pattern="sfsf", hidden=32, ffn=64, heads=8, kv_heads=4, kv_heads_full=2,
        head_dim=16, head_dim_full=32, window=9, k_eq_v=True,
        draft_ffn=32, draft_heads=8,
    ),
}  # fmt: skip
ARCHITECTURES = tuple(SHAPES)


def lengths(shape: Shape) -> dict[str, int]:
    """Returns the relevant sequence lengths: one key to draft from, inside the window, well past
    it."""
    return {"start": 2, "short": shape.window - 2, "long": 3 * shape.window + 5}


# ---------------------------------------------------------------- building


def _layer_types(pattern: str) -> list[str]:
    return ["full_attention" if c == "f" else "sliding_attention" for c in pattern]


def _text_config(shape: Shape) -> dict[str, Any]:
    config: dict[str, Any] = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": len(shape.pattern),
        "layer_types": _layer_types(shape.pattern),
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "num_global_key_value_heads": shape.kv_heads_full,
        "head_dim": shape.head_dim,
        "global_head_dim": shape.head_dim_full,
        "sliding_window": shape.window,
        "num_kv_shared_layers": shape.shared,
        "use_double_wide_mlp": shape.wide,
        "attention_k_eq_v": shape.k_eq_v,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 1024,
    }
    if not shape.unified:
        config["hidden_size_per_layer_input"] = shape.per_layer
        config["vocab_size_per_layer_input"] = shape.vocab
        config["enable_moe_block"] = shape.experts > 0
        if shape.experts:
            config["num_experts"] = shape.experts
            config["top_k_experts"] = shape.experts_used
            config["moe_intermediate_size"] = shape.expert_ffn
    return config


def _drafter_text_config(shape: Shape) -> dict[str, Any]:
    config = _text_config(shape) | {
        "hidden_size": shape.draft_hidden,
        "intermediate_size": shape.draft_ffn,
        "num_hidden_layers": 4,
        "layer_types": _layer_types("sssf"),
        "num_attention_heads": shape.draft_heads,
        "num_kv_shared_layers": 4,
        "use_double_wide_mlp": False,
        "final_logit_softcapping": None,
    }
    if shape.unified:
        return config | {"model_type": "gemma4_unified_text"}
    config = {key: value for key, value in config.items() if "expert" not in key}
    return config | {
        "model_type": "gemma4_text",
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 0,
        "enable_moe_block": False,
        "moe_intermediate_size": None,
    }


_VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": 16,
}  # fmt: skip
_AUDIO = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 32,
}  # fmt: skip


def build_target(shape: Shape, wrapper: str = "text") -> nn.Module:
    """Builds a target with fresh weights of the wrong scale (see `randomise`).

    wrapper: "causal" = the ...ForCausalLM class, "untied" = the same with its own head, "text" =
    ...ForConditionalGeneration without towers, "towers" = the same with a small vision and audio
    part, which the converter leaves out.
    """
    text = _text_config(shape)
    if wrapper in ("causal", "untied"):
        text["tie_word_embeddings"] = wrapper == "causal"
        if shape.unified:
            return Gemma4UnifiedForCausalLM(Gemma4UnifiedTextConfig(**text)).eval()
        return Gemma4ForCausalLM(Gemma4TextConfig(**text)).eval()
    towers: dict[str, Any] = {"vision_config": None, "audio_config": None}
    if wrapper == "towers" and shape.unified:
        towers["vision_config"] = {
            "mm_embed_dim": shape.hidden, "mm_posemb_size": 16, "output_proj_dims": shape.hidden,
        }  # fmt: skip
        towers["audio_config"] = {"audio_embed_dim": 640}
    elif wrapper == "towers":
        towers = {"vision_config": _VISION, "audio_config": _AUDIO if shape.per_layer else None}
    if shape.unified:
        config = Gemma4UnifiedConfig(text_config=text, **towers)
        return Gemma4UnifiedForConditionalGeneration(config).eval()
    return Gemma4ForConditionalGeneration(Gemma4Config(text_config=text, **towers)).eval()


def build_drafter(shape: Shape) -> nn.Module:
    """Builds the drafter of a target of this shape."""
    options = {
        "text_config": _drafter_text_config(shape),
        "backbone_hidden_size": shape.hidden,
        "use_ordered_embeddings": shape.centroids > 0,
    }
    if shape.centroids:
        options["num_centroids"] = shape.centroids
        options["centroid_intermediate_top_k"] = shape.centroids_used
    if shape.unified:
        config = Gemma4UnifiedAssistantConfig(**options)
        return Gemma4UnifiedAssistantForCausalLM(config).eval()
    return Gemma4AssistantForCausalLM(Gemma4AssistantConfig(**options)).eval()


@torch.no_grad()
def randomise(model: nn.Module, seed: int, storage: torch.dtype = torch.float16) -> None:
    """Draws weights that exercise everything, rounded to the precision of `storage`.

    Norm weights, layer scalars and the router's scales all differ from 1, so that omitting one is
    detected. Sizes are chosen so that attention is neither uniform nor one-hot, branches outweigh
    the token's own embedding, and logits spread over a few units, far from the softcap.
    """
    generator = torch.Generator().manual_seed(seed)
    eager(model)

    def normal(tensor: Tensor, mean: float, std: float) -> None:
        values = torch.empty(tensor.shape).normal_(mean, std, generator=generator)
        tensor.copy_(values.to(storage).to(tensor.dtype))

    for name, tensor in sorted(model.named_parameters()):  # lists tied ones once
        width = tensor.shape[-1]
        if "q_norm" in name or "k_norm" in name:
            # The two normalised vectors' product has deviation w^2 sqrt(d): about 1.2.
            normal(tensor, 1.1 * width**-0.25, 0.15 * width**-0.25)
        elif name.endswith("norm.weight") and ".post_" in name:
            normal(tensor, 2.5, 0.5)
        elif name.endswith(("norm.weight", "norm_1.weight", "norm_2.weight", "scale")):
            normal(tensor, 1.0, 0.25)
        elif name.endswith("router.proj.weight"):
            normal(tensor, 0.0, 1.5)
        elif "embed_tokens_per_layer" in name:
            normal(tensor, 0.0, 32**-0.5)
        elif "embed_tokens" in name or "lm_head" in name:
            normal(tensor, 0.0, 3.5 * width**-0.5)
        elif "per_layer_input_gate" in name:
            normal(tensor, 0.0, 0.3 * width**-0.5)
        elif "centroids" in name:
            normal(tensor, 0.0, 2.0 * width**-0.5)
        elif "pre_projection" in name:
            # Half of its input is embeddings of about 3.5, half a normalised hidden state of about
            # 1.
            normal(tensor, 0.0, width**-0.5)
            half = width // 2
            tensor[:, :half] = (tensor[:, :half] / 3.0).to(storage).to(tensor.dtype)
        elif tensor.ndim >= 2:
            normal(tensor, 0.0, width**-0.5)
        else:
            normal(tensor, 0.0, 0.1)
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith("layer_scalar"):
            normal(buffer, 0.85, 0.1)
        elif name.endswith("token_ordering"):
            buffer.copy_(torch.randperm(len(buffer), generator=generator))
    model.tie_weights()


def eager(model: nn.Module) -> None:
    """Selects plain attention and a plain loop over experts instead of fused kernels."""
    model.set_attn_implementation("eager")
    if getattr(text_config(model), "enable_moe_block", False):
        model.set_experts_implementation("eager")


def build_pair(
    arch: str, seed: int, wrapper: str = "text", storage: torch.dtype = torch.float16
) -> tuple[nn.Module, nn.Module]:
    """Builds target and drafter in float32, with weights that `storage` represents exactly."""
    shape = SHAPES[arch]
    target, drafter = build_target(shape, wrapper), build_drafter(shape)
    randomise(target, 2 * seed, storage)
    randomise(drafter, 2 * seed + 1, storage)
    return target, drafter


def save(
    model: nn.Module,
    folder: Path,
    storage: torch.dtype = torch.float16,
    older_config: bool = False,
    **options: Any,
) -> None:
    """Write a Hugging Face folder.

    older_config: write the full layers' head sizes as the first releases did.
    """
    # Use a copy: converting back would leave the model with RoPE frequencies of that precision.
    copy.deepcopy(model).to(storage).save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if older_config:
        _spell_as_first_releases(folder / "config.json")


def _spell_as_first_releases(path: Path) -> None:
    """`per_layer_config` -> `global_head_dim` and `num_global_key_value_heads`."""
    config = json.loads(path.read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    full = next(iter(text.pop("per_layer_config").values()))
    text["global_head_dim"] = full["head_dim"]
    text["num_global_key_value_heads"] = full.get("num_key_value_heads")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- running


def text_model(target: nn.Module) -> nn.Module:
    """Returns the decoder stack inside any of the target classes."""
    inner = target.model
    return getattr(inner, "language_model", inner)


def text_config(model: nn.Module) -> Any:
    return model.config.get_text_config()


@torch.no_grad()
def target_logits(target: nn.Module, ids: list[int]) -> np.ndarray:
    """Computes [len(ids), vocab] float32 with the model's own forward."""
    return target(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()


@dataclass
class TargetState:
    """The state from which a draft starts: the target after ids[:p]."""

    hidden: Tensor  # [1, p, hidden], after the final norm
    shared_kv: dict[str, tuple[Tensor, Tensor]]  # type -> K, V of [1, kv heads, p, head_dim]


@torch.no_grad()
def target_state(target: nn.Module, ids: list[int]) -> TargetState:
    """Runs the target without a cache, so that its last K/V of both types cover every position."""
    out = text_model(target)(
        input_ids=torch.tensor([ids]), use_cache=False, return_shared_kv_states=True
    )
    return TargetState(out.last_hidden_state, dict(out.shared_kv_states))


def visible_kv(state: TargetState, position: int, window: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns the K/V to which a drafter at `position` attends: all before it, or the window's
    part.

    The window is the target's: key k is seen when position - k < window. The assistant's own mask
    would be wider: it counts the distance from the newest key (at position - 1) and includes both
    ends, so it admits position - k <= window + 1. Passing only the keys inside the window leaves
    its forward unchanged and makes its mask admit all of them.
    """
    keys, values = state.shared_kv["sliding_attention"]
    first = max(0, position - window + 1)
    return {
        "full_attention": tuple(t[:, :, :position] for t in state.shared_kv["full_attention"]),
        "sliding_attention": (keys[:, :, first:position], values[:, :, first:position]),
    }


@dataclass
class Draft:
    """One round of drafting, step by step."""

    tokens: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)  # [vocab]; -inf: no candidate
    hidden: list[np.ndarray] = field(default_factory=list)  # [backbone]: the next step's h
    margin: float = math.inf  # least distance of a decision from a tie


def draft(target: nn.Module, drafter: nn.Module, ids: list[int], steps: int) -> Draft:
    """Drafts greedily after `ids`, whose last token is chosen but not yet run through the
    target."""
    position = len(ids) - 1
    state = target_state(target, ids[:-1])
    kv = visible_kv(state, position, text_config(target).sliding_window)
    return draft_from(target, drafter, ids[-1], state.hidden[:, -1:], kv, position, steps)


@torch.no_grad()
def draft_from(
    target: nn.Module,
    drafter: nn.Module,
    token: int,
    hidden: Tensor,  # [1, 1, backbone]
    kv: dict[str, tuple[Tensor, Tensor]],
    position: int,
    steps: int,
) -> Draft:
    """Runs the steps of a round with the assistant's own forward, always at the same position."""
    result = Draft()
    embedding = text_model(target).embed_tokens  # scales by sqrt(hidden) itself
    ordered = drafter.config.use_ordered_embeddings
    scores: list[Tensor] = []
    hook = (
        drafter.masked_embedding.centroids.register_forward_hook(
            lambda _module, _inputs, out: scores.append(out[0, 0])
        )
        if ordered
        else None
    )
    for _ in range(steps):
        embedded = embedding(torch.tensor([[token]]))
        out = drafter(
            inputs_embeds=torch.cat([embedded, hidden], dim=-1),
            position_ids=torch.tensor([[position]]),
            shared_kv_states=kv,
        )
        logits = out.logits[0, 0].clone()
        if ordered:
            order = scores[-1].sort(descending=True)
            used = drafter.config.centroid_intermediate_top_k
            gap = order.values[used - 1] - order.values[used]
            result.margin = min(result.margin, gap.item())
            clusters = drafter.masked_embedding.token_ordering.view(len(scores[-1]), -1)
            out_of_running = torch.ones(len(logits), dtype=torch.bool)
            out_of_running[clusters[order.indices[:used]].flatten()] = False
            logits[out_of_running] = -math.inf
        best = logits.topk(2).values
        result.margin = min(result.margin, (best[0] - best[1]).item())
        token = int(logits.argmax())
        hidden = out.last_hidden_state
        result.tokens.append(token)
        result.logits.append(logits.numpy())
        result.hidden.append(hidden[0, 0].numpy())
    if hook is not None:
        hook.remove()
    return result


@torch.no_grad()
def router_margin(target: nn.Module, ids: list[int]) -> float:
    """Returns the least gap between the last chosen expert and the next one, over layers and
    tokens."""
    margins = [math.inf]

    def note(module: nn.Module, _inputs: Any, out: Any) -> None:
        ordered = out[0].sort(dim=-1, descending=True).values
        used = module.config.top_k_experts
        margins.append((ordered[:, used - 1] - ordered[:, used]).min().item())

    hooks = [
        module.register_forward_hook(note)
        for name, module in target.named_modules()
        if name.endswith(".router")
    ]
    target(input_ids=torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return min(margins)


# ---------------------------------------------------------------- cases


DRAFT_STEPS = 4


@dataclass
class Case:
    """Inputs and the oracle's answers for one sequence."""

    ids: list[int]
    logits: np.ndarray  # [len(ids), vocab]
    draft: Draft


def clear_case(
    target: nn.Module, drafter: nn.Module, length: int, rng: np.random.Generator
) -> Case:
    """Returns a random sequence for which float32 has one clear answer.

    No decision is near a tie, so tokens must be equal. Rounding errors are small, too: a recurrent
    draft can be so ill-conditioned that two orders of summation differ by more than the bound of
    our comparison. This is checked with the same models in float64, and in float32 with weights
    changed in their last bits.
    """
    vocab = text_config(target).vocab_size
    precise = copy.deepcopy(target).double(), copy.deepcopy(drafter).double()
    jittered = [(jitter(target, i), jitter(drafter, i)) for i in range(4)]
    for _ in range(400):
        ids = [2, *rng.integers(3, vocab, length - 1).tolist()]
        if router_margin(target, ids) <= MARGIN / 10:
            continue
        case = answer(target, drafter, ids)
        if case.draft.margin <= MARGIN:
            continue
        reference = answer(*precise, ids)
        others = (answer(*pair, ids) for pair in jittered)
        if all(rounding(c, reference) <= ROUNDING for c in itertools.chain([case], others)):
            return case
    raise RuntimeError(
        f"float32 has no clear answer to any of 400 sequences of {length} tokens: a decision is "
        f"within {MARGIN} of a tie, or rounding exceeds {ROUNDING}; try another seed"
    )


def answer(target: nn.Module, drafter: nn.Module, ids: list[int]) -> Case:
    """Computes the models' answers for a sequence."""
    return Case(ids, target_logits(target, ids), draft(target, drafter, ids, DRAFT_STEPS))


@torch.no_grad()
def jitter(model: nn.Module, seed: int) -> nn.Module:
    """Returns a copy whose weights are changed by about half a unit in the last place of
    float32."""
    generator = torch.Generator().manual_seed(seed)
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter *= 1 + 2.0**-24 * torch.empty(parameter.shape).normal_(generator=generator)
    return copied


def rounding(case: Case, reference: Case) -> float:
    """Returns the largest relative error of any row of `case`."""
    if case.draft.tokens != reference.draft.tokens:
        return math.inf
    pairs = [*zip(case.logits, reference.logits, strict=True)]
    pairs += zip(case.draft.hidden, reference.draft.hidden, strict=True)
    pairs += zip(case.draft.logits, reference.draft.logits, strict=True)
    errors = []
    for row, precise in pairs:
        running = np.isfinite(precise)
        if not np.array_equal(running, np.isfinite(row)):
            return math.inf
        difference = np.linalg.norm(row[running] - precise[running])
        errors.append(difference / np.linalg.norm(precise[running]))
    return max(errors)
