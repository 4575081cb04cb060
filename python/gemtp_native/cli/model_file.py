"""The description of a model in a GGUF file, for people to read.

Nothing here raises for an invalid file. The core decides what is a valid model: `problems` are the
reasons why it would not open this one, and the layers and the head are those that it would load.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .. import _core
from ..errors import Error

_HEAD = "gemtp.ordered_head.num_centroids"  # key of an ordered head in the metadata


class Tensor(NamedTuple):
    name: str
    type: str
    shape: list[int]  # contiguous dimension first
    bytes: int
    computable: bool  # by this build


class Layer(NamedTuple):
    sliding: bool
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    owns_kv: bool


class OrderedHead(NamedTuple):
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
        self.examined = _core.ExaminedFile(self.gguf)
        for sentence in self.examined.problems:
            self.add_problem(sentence)
        model = self.examined.model
        self.layers = [Layer(*x) for x in model["layers"]]
        self.backbone: int | None = model["backbone"] if model["drafter"] else None
        self.ordered_head = (
            OrderedHead(model["centroids"], model["top_k"]) if model["centroids"] else None
        )
        self.role = ("drafter" if model["drafter"] else "target") if model["arch"] else "other"

    # ------------------------------------------------------------ metadata

    def value(self, key: str) -> Any:
        """Returns the value of a key; None if it is absent or cannot be read."""
        try:
            return self.gguf.value(key)
        except Error as e:
            self.add_problem(str(e))
            return None

    def text(self, key: str) -> str | None:
        value = self.value(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """Returns the value of a key below the architecture's name."""
        value = self.value(f"{self.arch}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    # ------------------------------------------------------------ what it is

    @property
    def kind(self) -> str:
        """ "target", "drafter", "vocabulary" (a tokenizer and no weights) or "other"."""
        if not self.tensors and self.value("tokenizer.ggml.model") is not None:
            return "vocabulary"
        return self.role

    @cached_property
    def parameters(self) -> int:
        return sum(math.prod(t.shape) for t in self.tensors if t.name != "rope_freqs.weight")

    @property
    def hidden(self) -> int | None:
        return self.integer("embedding_length")

    @property
    def vocab(self) -> int | None:
        """Number of rows of the embedding, or of tokens of the tokenizer if there is none."""
        embedding = self.named.get("token_embd.weight")
        if embedding is not None:
            return embedding.shape[1] if len(embedding.shape) == 2 else None
        return self.gguf.array_length("tokenizer.ggml.tokens")

    def types(self) -> dict[str, tuple[int, int]]:
        """Returns type -> (tensors, bytes), largest first."""
        found: dict[str, tuple[int, int]] = {}
        for t in self.tensors:
            count, size = found.get(t.type, (0, 0))
            found[t.type] = (count + 1, size + t.bytes)
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))

    def read_per_token(self) -> int:
        """Bytes of weights read for one row in decoding."""
        total, head = 0.0, self.ordered_head
        experts = self.integer("expert_count") or 0
        used = self.integer("expert_used_count") or 0
        for t in self.tensors:
            share = 1.0
            if t.name == "per_layer_token_embd.weight":
                share = 0.0  # only one row is read
            elif t.name == "token_embd.weight":
                share = head.top_k / head.centroids if head else 1.0
                share = 0.0 if "output.weight" in self.named else share
            elif "_exps.weight" in t.name and experts:
                share = used / experts
            total += share * t.bytes
        if head and self.hidden and self.value(_HEAD) is not None:
            total += 4 * head.centroids * self.hidden
        return round(total)

    def lookup_tables(self) -> int:
        """Bytes of the tables of which a token reads one row."""
        names = ["per_layer_token_embd.weight"]
        if "output.weight" in self.named or self.ordered_head is not None:
            names.append("token_embd.weight")
        return sum(self.named[name].bytes for name in names if name in self.named)

    def add_problem(self, sentence: str) -> None:
        """Returns a sentence of the core about this file, without the file's name."""
        _, named, what = sentence.partition(f"{self.path.name}': ")
        sentence = what if named else sentence.removeprefix(f"{self.path}: ")
        if sentence not in self.problems:
            self.problems.append(sentence)
