"""What a GGUF says about its model, read from metadata and tensor shapes alone.

Nothing here raises for a strange file: what cannot be read becomes an entry of `problems`. Opening
a Model is the strict check; csrc/model/config.cc is the definition of what a pair must agree on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .. import _core
from ..errors import Error

TARGETS = ("gemma4",)
DRAFTERS = ("gemma4-assistant", "gemma4_assistant", "gemma4_mtp")
HEAD = "gemtp.ordered_head"

# Of drafters, by different converters: csrc/model/weights.cc.
_CENTROIDS = ("masked_embd_centroids.weight", "mtp.centroids.weight", "mtp_centroids.weight")
_ORDERINGS = {
    "masked_embd_ordering",
    "masked_embd_ordering.weight",
    "mtp.token_ordering.weight",
    "mtp_token_ordering.weight",
}
_OTHER_NAMES = {
    f"nextn.{part}_projection.weight": (
        f"nextn.{part}_projection.weight",
        f"mtp.{part}_projection.weight",
        f"mtp_{part}_proj.weight",
    )
    for part in ("pre", "post")
}
_BACKBONE = ("embedding_length_out", "n_embd_backbone", "backbone_embedding_length")

# In the layers of every model; others depend on what the layer has.
_LAYER_TENSORS = (
    "attn_norm",
    "attn_q_norm",
    "attn_output",
    "post_attention_norm",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
    "post_ffw_norm",
)


class Tensor(NamedTuple):
    name: str
    type: str
    shape: list[int]  # contiguous dimension first
    bytes: int
    computable: bool  # by this build


@dataclass(frozen=True)
class Layer:
    sliding: bool
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    owns_kv: bool


@dataclass(frozen=True)
class OrderedHead:
    centroids: int
    top_k: int


@dataclass
class ModelFile:
    path: Path
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gguf = _core.GgufFile(self.path)
        self.tensors = [Tensor(*t) for t in self.gguf.tensors]
        self.named = {t.name: t for t in self.tensors}
        self.arch = self.text("general.architecture")
        self.layers = self._layers()
        self.ordered_head = self._ordered_head()
        self._find_problems()

    # ------------------------------------------------------------ metadata

    def value(self, key: str) -> Any:
        """Of a key, None when it is absent or cannot be read."""
        try:
            return self.gguf.value(key)
        except Error as e:
            self.problem_of(e)
            return None

    def text(self, key: str) -> str | None:
        value = self.value(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """Of a key below the architecture's name."""
        value = self.value(f"{self.arch}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def per_layer(self, key: str) -> list[int] | None:
        """A value for all layers, or one for each."""
        value, count = self.value(f"{self.arch}.{key}"), self.integer("block_count") or 0
        if isinstance(value, int):
            return [int(value)] * min(count, 1024)
        if isinstance(value, list) and len(value) == count and all_integers(value):
            return value
        return None

    # ------------------------------------------------------------ what it is

    @property
    def kind(self) -> str:
        """ "target", "drafter", "vocabulary" (a tokenizer and no weights) or "other"."""
        if not self.tensors and self.value("tokenizer.ggml.model") is not None:
            return "vocabulary"
        if self.arch in TARGETS:
            return "target"
        return "drafter" if self.arch in DRAFTERS else "other"

    @cached_property
    def parameters(self) -> int:
        return sum(math.prod(t.shape) for t in self.tensors if t.name != "rope_freqs.weight")

    @property
    def hidden(self) -> int | None:
        return self.integer("embedding_length")

    @property
    def backbone(self) -> int | None:
        """Of a drafter: the hidden size of its target."""
        return next((v for v in map(self.integer, _BACKBONE) if v is not None), None)

    @property
    def vocab(self) -> int | None:
        """Rows of the embedding, or tokens of the tokenizer where there is none."""
        embedding = self.named.get("token_embd.weight")
        if embedding is not None:
            return embedding.shape[1] if len(embedding.shape) == 2 else None
        return self.gguf.array_length("tokenizer.ggml.tokens")

    def last_kv_layer(self, sliding: bool) -> Layer | None:
        """The layer whose K/V a drafter's layers of that type attend to."""
        return next((x for x in reversed(self.layers) if x.owns_kv and x.sliding == sliding), None)

    def types(self) -> dict[str, tuple[int, int]]:
        """type -> (tensors, bytes), the largest first."""
        found: dict[str, tuple[int, int]] = {}
        for t in self.tensors:
            count, size = found.get(t.type, (0, 0))
            found[t.type] = (count + 1, size + t.bytes)
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))

    def read_per_token(self) -> int:
        """Bytes of weights that one row of decoding reads."""
        total = 0.0
        experts = self.integer("expert_count") or 0
        used = self.integer("expert_used_count") or 0
        for t in self.tensors:
            share = 1.0
            if t.name == "per_layer_token_embd.weight":
                share = 0.0  # one row is looked up
            elif t.name == "token_embd.weight":
                share = self._head_share() if "output.weight" not in self.named else 0.0
            elif "_exps.weight" in t.name and experts:
                share = used / experts
            total += share * t.bytes
        if self.ordered_head is not None and self.hidden and self._head_in_metadata():
            total += 4 * self.ordered_head.centroids * self.hidden
        return round(total)

    def lookup_tables(self) -> int:
        """Bytes of the tables of which a token needs one row."""
        names = ["per_layer_token_embd.weight"]
        if "output.weight" in self.named or self.ordered_head is not None:
            names.append("token_embd.weight")
        return sum(self.named[name].bytes for name in names if name in self.named)

    # ------------------------------------------------------------ parts

    def _head_share(self) -> float:
        head = self.ordered_head
        return 1.0 if head is None else head.top_k / max(head.centroids, 1)

    def _head_in_metadata(self) -> bool:
        return self.value(f"{HEAD}.num_centroids") is not None

    def _layers(self) -> list[Layer]:
        sliding = self.per_layer("attention.sliding_window_pattern")
        heads = self.per_layer("attention.head_count")
        kv_heads = self.per_layer("attention.head_count_kv")
        feed_forward = self.per_layer("feed_forward_length")
        full_dim = self.integer("attention.key_length")
        if not (sliding and heads and kv_heads and feed_forward and full_dim):
            return []
        sliding_dim = self.integer("attention.key_length_swa") or full_dim
        shared = self.integer("attention.shared_kv_layers") or 0
        owned = 0 if self.arch in DRAFTERS else len(sliding) - shared
        return [
            Layer(bool(s), h, kv, sliding_dim if s else full_dim, width, i < owned)
            for i, (s, h, kv, width) in enumerate(
                zip(sliding, heads, kv_heads, feed_forward, strict=True)
            )
        ]

    def _ordered_head(self) -> OrderedHead | None:
        centroids, top_k = self.value(f"{HEAD}.num_centroids"), self.value(f"{HEAD}.top_k")
        rows = next((self.named[n] for n in _CENTROIDS if n in self.named), None)
        if isinstance(centroids, int):
            return OrderedHead(centroids, top_k if isinstance(top_k, int) else 0)
        if rows is None or len(rows.shape) != 2:
            return None
        top_k = self.integer("centroid_top_k") or self.integer("centroid_intermediate_top_k")
        return OrderedHead(rows.shape[1], top_k or min(32, rows.shape[1]))

    # ------------------------------------------------------------ problems

    def problem_of(self, error: Error) -> None:
        """An error of the core about this file, without the file's name."""
        _, named, what = str(error).partition(f"{self.path.name}': ")
        self._problem(what if named else str(error).removeprefix(f"{self.path}: "))

    def _problem(self, sentence: str) -> None:
        if sentence not in self.problems:
            self.problems.append(sentence)

    def _find_problems(self) -> None:
        kind = self.kind
        if self.arch is None:
            self._problem("general.architecture is missing")
        elif kind == "other":
            self._problem(f"{self.arch!r} is not an architecture that gemtp runs")
        for name, (count, _) in self.types().items():
            odd = [t.name for t in self.tensors if t.type == name and not t.computable]
            if odd and not set(odd) <= _ORDERINGS:
                more = "" if count == 1 else f" and {count - 1} more"
                self._problem(f"gemtp does not compute with {name} ({odd[0]}{more})")
        if kind not in ("target", "drafter"):
            return
        if not self.layers:
            self._problem("the metadata does not describe the layers")
        missing = [
            names[0]
            for names in (_OTHER_NAMES.get(n, (n,)) for n in self._demanded())
            if not any(name in self.named for name in names)
        ]
        if missing:
            more = "" if len(missing) == 1 else f" and {len(missing) - 1} more are missing"
            self._problem(f"tensor {missing[0]}{more or ' is missing'}")

    def _demanded(self) -> Iterator[str]:
        yield from ("token_embd.weight", "output_norm.weight")
        if self.kind == "target" and any(not layer.sliding for layer in self.layers):
            yield "rope_freqs.weight"
        per_layer_input = bool(self.integer("embedding_length_per_layer_input"))
        if per_layer_input:
            yield from (
                f"per_layer_{part}.weight" for part in ("token_embd", "model_proj", "proj_norm")
            )
        if self.kind == "drafter":
            yield from ("nextn.pre_projection.weight", "nextn.post_projection.weight")
        for i, layer in enumerate(self.layers):
            fused = f"blk.{i}.attn_qkv.weight" in self.named
            parts = list(_LAYER_TENSORS)
            parts += ["attn_q"] if not fused else []
            parts += ["attn_k_norm"] if layer.owns_kv else []
            parts += ["attn_k"] if layer.owns_kv and not fused else []
            parts += ["inp_gate", "proj", "post_norm"] if per_layer_input else []
            yield from (f"blk.{i}.{part}.weight" for part in parts)


def all_integers(values: list[Any]) -> bool:
    return all(isinstance(v, int) for v in values)


def why_not(target: ModelFile, drafter: ModelFile) -> list[str]:
    """How a drafter does not fit a target; empty when it does."""
    reasons = []
    backbone = drafter.backbone
    if backbone != target.hidden:
        reasons.append(
            f"it expects a target of hidden size {backbone}, this one has {target.hidden}"
        )
    if drafter.vocab != target.vocab:
        reasons.append(f"it knows {drafter.vocab} tokens, the target {target.vocab}")
    for sliding in (True, False):
        name = "sliding" if sliding else "full-attention"
        mine = [x for x in drafter.layers if x.sliding == sliding]
        source = target.last_kv_layer(sliding)
        if mine and source is None:
            reasons.append(f"it reads K/V of a {name} layer and the target has none")
        elif mine and source is not None:
            if mine[0].head_dim != source.head_dim:
                reasons.append(
                    f"its {name} heads are {mine[0].head_dim} wide, the target's {source.head_dim}"
                )
            if any(x.heads % max(source.kv_heads, 1) for x in mine):
                reasons.append(
                    f"its {mine[0].heads} heads cannot share the {source.kv_heads} K/V heads of "
                    f"the target's {name} layers"
                )
    return reasons
