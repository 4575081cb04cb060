"""What was measured. Times are milliseconds, bandwidths bytes per second."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Timing:
    """Of one thing over interleaved rounds."""

    ms: float  # median
    best_ms: float
    worst_ms: float

    @staticmethod
    def of(seconds: Sequence[float]) -> dict[str, float]:
        """As the keywords of a subclass."""
        ms = [1000 * s for s in seconds]
        return {"ms": statistics.median(ms), "best_ms": min(ms), "worst_ms": max(ms)}


@dataclass
class Load:
    seconds: float
    from_storage_bytes: int | None  # None: the system does not say
    cached_seconds: float | None  # from the page cache


@dataclass
class Memory:
    """After loading and a first token; None where the system does not say."""

    resident_bytes: int | None
    peak_bytes: int | None
    context: int  # tokens that the K/V cache was made for


@dataclass
class Weights:
    """Laid-out weights that are read."""

    token_bytes: int  # by a step of plain decoding
    draft_bytes: int | None  # by a draft step
    plain_head_draft_bytes: int | None  # by a draft step with the plain head, if there is a choice


@dataclass
class Bandwidth:
    """The best pass of all rounds."""

    plain: float
    prefetched: float
    buffer_bytes: int
    rounds: int

    @property
    def best(self) -> float:
        return max(self.plain, self.prefetched)


@dataclass
class Prefill(Timing):
    tokens: int
    tokens_per_second: float


@dataclass
class Decode(Timing):
    context: int
    tokens_per_second: float
    read_bytes: int  # of weights, keys and values
    bytes_per_second: float
    share: float | None  # of the best bandwidth


@dataclass
class Rows(Timing):
    rows: int
    ratio: float  # of the medians, to one row
    best_ratio: float  # of the best times


@dataclass
class Draft(Timing):
    head: str  # "ordered" or "plain"
    ratio: float  # of the medians, to a pass over one row
    best_ratio: float
    read_bytes: int


@dataclass
class Generate:
    depth: int | str
    tokens_per_second: float  # median
    best: float
    worst: float
    drafted: int
    accepted: int
    acceptance: float | None  # None: nothing was drafted
    tokens_per_round: float
    speedup: float  # of the medians, over depth 0


@dataclass
class Setup:
    """What was measured, with what."""

    version: str
    compiler: str
    machine: dict[str, Any]
    threads: int
    isa: str
    target: dict[str, Any]
    drafter: dict[str, Any] | None
    kv_type: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class BenchReport(Setup):
    load: Load
    memory: Memory
    weights: Weights
    at: int  # context of `rows` and `draft`
    prompt_tokens: int = 0  # of the generations
    generated_tokens: int = 0
    rounds: dict[str, int] = field(default_factory=dict)  # section -> rounds behind its medians
    bandwidth: Bandwidth | None = None
    prefill: list[Prefill] = field(default_factory=list)
    decode: list[Decode] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    draft: list[Draft] = field(default_factory=list)
    generate: list[Generate] = field(default_factory=list)
    identical: bool | None = None  # the texts of all generations
    skipped: dict[str, str] = field(default_factory=dict)  # section -> why
