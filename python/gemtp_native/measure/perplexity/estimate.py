"""Perplexity: e to the power of the mean negative log-likelihood of a token."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ...model import Model
from .chunks import first_scored, split, token_ids


@dataclass(frozen=True)
class Estimate:
    """An estimate over the tokens scored so far."""

    chunks: int
    tokens: int
    nll: float
    """Mean negative log-likelihood of a token, in nats."""
    nll_uncertainty: float
    """Its standard error, as if tokens were independent."""

    @property
    def perplexity(self) -> float:
        return math.exp(self.nll) if self.nll < 700 else math.inf

    @property
    def uncertainty(self) -> float:
        """Standard error of the perplexity, to first order."""
        return self.nll_uncertainty * self.perplexity


class Tally:
    """Accumulates chunks."""

    def __init__(self) -> None:
        self._chunks = self._tokens = 0
        self._sum = self._squares = 0.0

    def add(self, log_probs: np.ndarray) -> Estimate:
        """Adds a chunk. log_probs: those of its scored tokens."""
        self._chunks += 1
        self._tokens += len(log_probs)
        self._sum -= float(log_probs.sum())
        self._squares += float(np.square(log_probs).sum())
        mean = self._sum / self._tokens
        return Estimate(
            self._chunks, self._tokens, mean, standard_error(mean, self._squares, self._tokens)
        )


def standard_error(mean: float, squares: float, count: int) -> float:
    """The standard error of a mean of `count` values with this sum of squares; 0 for one value."""
    variance = squares / count - mean * mean
    return math.sqrt(variance / (count - 1)) if variance > 0 and count > 1 else 0.0


@dataclass(frozen=True)
class Result(Estimate):
    """A finished evaluation."""

    context: int
    text_tokens: int
    """Tokens of the whole text; those after the last full chunk are not scored."""
    running: list[float]
    """Perplexity after each chunk."""
    seconds: float
    threads: int
    device: str
    isa: str

    def as_dict(self) -> dict[str, Any]:
        return {"perplexity": self.perplexity, "uncertainty": self.uncertainty, **asdict(self)}


Progress = Callable[[Estimate, int], None]


def perplexity(
    target: str | os.PathLike[str],
    text: str | bytes,
    *,
    context: int = 512,
    chunks: int | None = None,
    threads: int | None = None,
    kv_type: Literal["f16", "f32"] = "f16",
    device: str | None = None,
    gpu_layers: int | Literal["auto"] | None = None,
    special: bool = False,
    progress: Progress = lambda _, __: None,
) -> Result:
    """Scores `text` in chunks of `context` tokens (the first `chunks` of them, or all). special:
    control tokens that it spells are these tokens.

    ``progress`` is called after each chunk with the estimate so far and the number of chunks.
    """
    model = Model(
        target,
        threads=threads,
        context=max(2, context),
        kv_type=kv_type,
        device=device,
        gpu_layers=gpu_layers,
    )
    ids = token_ids(model, text, special)
    parts = split(model, ids, context, chunks)
    tally, running = Tally(), []
    start = time.perf_counter()
    for chunk in parts:
        estimate = tally.add(model.score(chunk, first_scored(context)))
        running.append(estimate.perplexity)
        progress(estimate, len(parts))
    return Result(
        **asdict(estimate),
        context=context,
        text_tokens=len(ids),
        running=running,
        seconds=time.perf_counter() - start,
        threads=model.threads,
        device=model.device,
        isa=model.isa,
    )
