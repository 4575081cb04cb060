"""The shapes of the released models and of their drafters."""

from __future__ import annotations

from ..convert.config import ModelConfig, OrderedHead
from ..errors import ArgumentError

# hidden, heads, K/V heads of sliding and full layers, layers, feed-forward, window, layers from one
# full-attention layer to the next, layers that share K/V, width of per-layer embeddings,
# experts (number, used, feed-forward), hidden size of the drafter
_SHAPES = {
    "e2b": (1536, 8, 1, 1, 35, 6144, 512, 5, 20, 256, (0, 0, 0), 256),
    "e4b": (2560, 8, 2, 2, 42, 10240, 512, 6, 18, 256, (0, 0, 0), 256),
    "12b": (3840, 16, 8, 1, 48, 15360, 1024, 6, 0, 0, (0, 0, 0), 1024),
    "26b-a4b": (2816, 16, 8, 2, 30, 2112, 1024, 6, 0, 0, (128, 8, 704), 1024),
    "31b": (5376, 32, 16, 4, 60, 21504, 1024, 6, 0, 0, (0, 0, 0), 1024),
}
SHAPES = tuple(_SHAPES)
VOCAB = 262_144
_CONTEXT = 131_072
_DRAFTER_PATTERN = [True, True, True, False]


def target_config(shape: str, vocab: int = VOCAB, layers: int | None = None) -> ModelConfig:
    """The target's configuration, with the first `layers` - 1 of its layers and the last one.

    Of a model whose last layers share K/V, as large a part of what is left shares it. The last
    layer is always one of full attention.
    """
    if shape not in _SHAPES:
        raise ArgumentError(f"shape is {shape!r}; {', '.join(SHAPES)} are possible.")
    hidden, heads, kv_sliding, kv_full, n, ffn, window, period, shared, ple, experts, _ = _SHAPES[
        shape
    ]
    least = 4 if shared else 2
    if layers is not None and not least <= layers <= n:
        raise ArgumentError(f"layers is {layers}; {shape} can have {least} to {n}.")
    kept = n if layers is None else layers
    sliding = [(i + 1) % period != 0 for i in range(kept)]
    sliding[-1] = False
    if shared:
        shared = max(1, shared * kept // n)
        owners = kept - shared
        if all(sliding[:owners]):  # the shared full layers read one of their own kind
            sliding[owners - 1] = False
        if owners < 2 or not any(sliding[:owners]):
            raise ArgumentError(f"layers is {layers}: too few for {shape}.")
    feed_forward = [ffn] * kept
    if shape == "e2b":  # the layers that share K/V have twice the width
        feed_forward[kept - shared :] = [2 * ffn] * shared
    return ModelConfig(
        class_name=f"synthetic {shape}",
        drafter=False,
        tensor_prefix="",
        vocab=vocab,
        hidden=hidden,
        layers=kept,
        heads=heads,
        kv_heads=[kv_sliding if s else kv_full for s in sliding],
        sliding=sliding,
        head_dim_sliding=256,
        head_dim_full=512,
        feed_forward=feed_forward,
        shared_kv_layers=shared,
        k_eq_v=not ple,
        window=window,
        rms_eps=1e-6,
        softcap=30.0,
        context_length=_CONTEXT,
        rope_base_sliding=10_000.0,
        rope_base_full=1_000_000.0,
        rope_factor_full=0.25,
        ple_width=ple,
        experts=experts[0],
        experts_used=experts[1],
        expert_feed_forward=experts[2],
        tied=False,
        backbone=0,
        ordered_head=None,
        token_ids={},
    )


def drafter_config(shape: str, target: ModelConfig) -> ModelConfig:
    """The configuration of the drafter that belongs to `target`."""
    hidden = _SHAPES[shape][-1]
    small = hidden == 256
    heads = 4 if small else target.heads
    ordered = None
    if small:
        clusters = min(2048, target.vocab // 16)
        if target.vocab % clusters:
            raise ArgumentError(
                f"the vocabulary has {target.vocab} tokens, not a multiple of the {clusters} "
                f"clusters of the ordered head."
            )
        ordered = OrderedHead(clusters, max(1, clusters // 64))
    return ModelConfig(
        class_name=f"synthetic {shape} drafter",
        drafter=True,
        tensor_prefix="",
        vocab=target.vocab,
        hidden=hidden,
        layers=len(_DRAFTER_PATTERN),
        heads=heads,
        kv_heads=[
            target.kv_heads[target.sliding.index(s)] if s else target.kv_heads[-1]
            for s in _DRAFTER_PATTERN
        ],
        sliding=list(_DRAFTER_PATTERN),
        head_dim_sliding=target.head_dim_sliding,
        head_dim_full=target.head_dim_full,
        feed_forward=[8 * hidden] * len(_DRAFTER_PATTERN),
        shared_kv_layers=len(_DRAFTER_PATTERN),
        k_eq_v=False,
        window=target.window,
        rms_eps=1e-6,
        softcap=None,
        context_length=_CONTEXT,
        rope_base_sliding=10_000.0,
        rope_base_full=1_000_000.0,
        rope_factor_full=0.25,
        ple_width=0,
        experts=0,
        experts_used=0,
        expert_feed_forward=0,
        tied=True,
        backbone=target.hidden,
        ordered_head=ordered,
        token_ids={},
    )
