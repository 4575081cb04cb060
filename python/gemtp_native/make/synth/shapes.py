"""The shapes of the released models and of their drafters, whole or cut to fewer layers."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import ArgumentError
from ..convert.config import ModelConfig, OrderedHead

VOCAB = 262_144
_DRAFTER_PATTERN = [True, True, True, False]  # True: sliding


@dataclass(frozen=True)
class _Shape:
    """The values in which one pair differs from the others."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads_sliding: int
    kv_heads_full: int
    window: int
    period: int  # from one full-attention layer to the next
    drafter_hidden: int
    drafter_heads: int
    context: int = 262_144
    shared_layers: int = 0  # number of last layers, without K/V of their own
    shared_feed_forward: int = 0  # feed-forward width of those layers
    per_layer_input: int = 0
    experts: tuple[int, int, int] = (0, 0, 0)  # number, used, feed-forward


_SHAPES = {
    "e2b": _Shape(
        layers=35, hidden=1536, feed_forward=6144, heads=8, kv_heads_sliding=1, kv_heads_full=1,
        window=512, period=5, drafter_hidden=256, drafter_heads=4, context=131_072,
        shared_layers=20, shared_feed_forward=12_288, per_layer_input=256,
    ),
    "e4b": _Shape(
        layers=42, hidden=2560, feed_forward=10_240, heads=8, kv_heads_sliding=2, kv_heads_full=2,
        window=512, period=6, drafter_hidden=256, drafter_heads=4, context=131_072,
        shared_layers=18, shared_feed_forward=10_240, per_layer_input=256,
    ),
    "12b": _Shape(
        layers=48, hidden=3840, feed_forward=15_360, heads=16, kv_heads_sliding=8, kv_heads_full=1,
        window=1024, period=6, drafter_hidden=1024, drafter_heads=16,
    ),
    "26b-a4b": _Shape(
        layers=30, hidden=2816, feed_forward=2112, heads=16, kv_heads_sliding=8, kv_heads_full=2,
        window=1024, period=6, drafter_hidden=1024, drafter_heads=16, experts=(128, 8, 704),
    ),
    "31b": _Shape(
        layers=60, hidden=5376, feed_forward=21_504, heads=32, kv_heads_sliding=16, kv_heads_full=4,
        window=1024, period=6, drafter_hidden=1024, drafter_heads=32,
    ),
}  # fmt: skip
SHAPES = tuple(_SHAPES)


def _shape(name: str) -> _Shape:
    if name not in _SHAPES:
        raise ArgumentError(f"shape is {name!r}; {', '.join(SHAPES)} are possible.")
    return _SHAPES[name]


def target_config(shape: str, vocab: int = VOCAB, layers: int | None = None) -> ModelConfig:
    """The target's configuration, cut to its first layers: the same pattern, the last layer full.

    The same fraction of layers shares K/V as in the whole model, but the layers that own K/V always
    include one of each type, to which the others and the drafter attend.
    """
    s = _shape(shape)
    if layers is not None and not 2 <= layers <= s.layers:
        raise ArgumentError(
            f"layers is {layers}; {shape} can have 2 (one of each type of attention) to {s.layers}."
        )
    kept = s.layers if layers is None else layers
    sliding = [(i + 1) % s.period != 0 and i != kept - 1 for i in range(kept)]
    owners = kept
    if s.shared_layers:
        in_proportion = round(kept * (s.layers - s.shared_layers) / s.layers)
        owners = max(in_proportion, sliding.index(False) + 1)
    shared = kept - owners
    return ModelConfig(
        class_name=f"synthetic {shape}",
        drafter=False,
        tensor_prefix="",
        vocab=vocab,
        hidden=s.hidden,
        layers=kept,
        heads=s.heads,
        kv_heads=[s.kv_heads_sliding if x else s.kv_heads_full for x in sliding],
        sliding=sliding,
        head_dim_sliding=256,
        head_dim_full=512,
        feed_forward=[s.feed_forward] * owners + [s.shared_feed_forward] * shared,
        shared_kv_layers=shared,
        k_eq_v=not s.per_layer_input,
        window=s.window,
        rms_eps=1e-6,
        softcap=30.0,
        context_length=s.context,
        rope_base_sliding=10_000.0,
        rope_base_full=1_000_000.0,
        rope_factor_full=0.25,
        ple_width=s.per_layer_input,
        experts=s.experts[0],
        experts_used=s.experts[1],
        expert_feed_forward=s.experts[2],
        tied=False,
        backbone=0,
        ordered_head=None,
        token_ids={},
    )


def drafter_config(shape: str, target: ModelConfig) -> ModelConfig:
    """The configuration of the drafter that belongs to `target`."""
    s = _shape(shape)
    return ModelConfig(
        class_name=f"synthetic {shape} drafter",
        drafter=True,
        tensor_prefix="",
        vocab=target.vocab,
        hidden=s.drafter_hidden,
        layers=len(_DRAFTER_PATTERN),
        heads=s.drafter_heads,
        kv_heads=[s.kv_heads_sliding if x else s.kv_heads_full for x in _DRAFTER_PATTERN],
        sliding=list(_DRAFTER_PATTERN),
        head_dim_sliding=target.head_dim_sliding,
        head_dim_full=target.head_dim_full,
        feed_forward=[8 * s.drafter_hidden] * len(_DRAFTER_PATTERN),
        shared_kv_layers=len(_DRAFTER_PATTERN),
        k_eq_v=target.k_eq_v,
        window=target.window,
        rms_eps=1e-6,
        softcap=None,
        context_length=target.context_length,
        rope_base_sliding=10_000.0,
        rope_base_full=1_000_000.0,
        rope_factor_full=0.25,
        ple_width=0,
        experts=0,
        experts_used=0,
        expert_feed_forward=0,
        tied=True,
        backbone=target.hidden,
        ordered_head=_ordered_head(target.vocab) if s.per_layer_input else None,
        token_ids={},
    )


def _ordered_head(vocab: int) -> OrderedHead:
    """Returns 2048 clusters of which 32 are used; proportionally fewer for a small vocabulary."""
    clusters = min(2048, vocab // 16)
    if vocab % clusters:
        raise ArgumentError(
            f"the vocabulary has {vocab:,} tokens, not a multiple of the {clusters:,} clusters of "
            f"the ordered head."
        )
    return OrderedHead(clusters, max(1, clusters // 64))
