"""What to measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...arguments import MAX_CONTEXT, integer
from ...options import MAX_DRAFT
from ..perplexity.chunks import SHORTEST


@dataclass(frozen=True)
class SweepSettings:
    """Raises ArgumentError for values that no pair could be measured with."""

    depth: int = 4  # drafts a round, in all generations
    prompts: int = 8  # cut from the text, evenly spaced
    prompt_tokens: int = 64  # of each, BOS not counted
    tokens: int = 64  # generated after each
    runs: int = 3  # interleaved rounds of generations
    context: int = 256  # tokens of a chunk of the text, whose second half is scored
    chunks: int = 8  # of the text to score, at most
    threads: int | None = None
    kv_type: Literal["f16", "f32"] = "f16"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("depth", 1, MAX_DRAFT),
            ("prompts", 1, 10000),
            ("prompt_tokens", 1, MAX_CONTEXT),
            ("tokens", 2, MAX_CONTEXT),  # the first belongs to the prompt's time
            ("runs", 1, 1000),
            ("context", SHORTEST, MAX_CONTEXT),
            ("chunks", 1, MAX_CONTEXT),
        ):
            object.__setattr__(self, name, integer(name, getattr(self, name), low, high))
