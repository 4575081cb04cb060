"""The settings of a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from ...arguments import MAX_CONTEXT, integer
from ...options import MAX_DRAFT
from ..perplexity.chunks import SHORTEST
from ..settings import EngineSettings


@dataclass(frozen=True)
class SweepSettings(EngineSettings):
    """Raises ArgumentError for values that are invalid for every pair."""

    depth: int = 4  # drafts per round in all generations
    prompts: int = 8  # number of prompts, evenly spaced in the text
    prompt_tokens: int = 64  # tokens of each prompt, without BOS
    tokens: int = 64  # tokens generated after each prompt
    runs: int = 3  # interleaved rounds of generations
    context: int = 256  # tokens of a chunk, whose second half is scored
    chunks: int = 8  # most chunks to score

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (
            ("depth", 1, MAX_DRAFT),
            ("prompts", 1, 10000),
            ("prompt_tokens", 1, MAX_CONTEXT),
            ("tokens", 2, MAX_CONTEXT),  # the first one counts as prompt time
            ("runs", 1, 1000),
            ("context", SHORTEST, MAX_CONTEXT),
            ("chunks", 1, MAX_CONTEXT),
        ):
            object.__setattr__(self, name, integer(name, getattr(self, name), low, high))
