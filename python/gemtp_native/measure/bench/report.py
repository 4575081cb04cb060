"""The results. Times are in milliseconds, bandwidths in bytes per second."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Timing:
    """Times of one case over interleaved rounds."""

    ms: float  # median
    best_ms: float
    worst_ms: float

    @staticmethod
    def of(seconds: Sequence[float]) -> dict[str, float]:
        """Returns the keywords for a subclass."""
        ms = [1000 * s for s in seconds]
        return {"ms": statistics.median(ms), "best_ms": min(ms), "worst_ms": max(ms)}


@dataclass
class Load:
    seconds: float
    from_storage_bytes: int | None  # None: not reported by the system
    cached_seconds: float | None  # from the page cache


@dataclass
class Memory:
    """Memory after loading and a first token; None: not reported by the system."""

    resident_bytes: int | None
    peak_bytes: int | None
    context: int  # tokens of the K/V cache


@dataclass
class Weights:
    """Bytes of laid-out weights that are read."""

    token_bytes: int  # by a step of plain decoding
    draft_bytes: int | None  # by a draft step
    plain_head_draft_bytes: int | None  # by a draft step with the plain head, if both heads exist


@dataclass
class Bandwidth:
    """The best bandwidth of all rounds: of the CPU's memory, or of a GPU's."""

    plain: float | None
    prefetched: float | None
    copied: float | None  # by a GPU within its memory: what it reads and writes
    buffer_bytes: int
    rounds: int

    @property
    def best(self) -> float:
        return max(b for b in (self.plain, self.prefetched, self.copied) if b is not None)


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
    ratio: float  # ratio of the medians to one row
    best_ratio: float  # ratio of the best times to one row


@dataclass
class Draft(Timing):
    head: str  # "ordered" or "plain"
    ratio: float  # ratio of the medians to a pass over one row
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
    speedup: float  # ratio of the medians to depth 0


@dataclass
class Setup:
    """The model, machine and build of a measurement."""

    version: str
    compiler: str
    machine: dict[str, Any]
    threads: int
    device: str
    identity: str  # the device, its driver and the layers on it; "cpu"
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
    at: int  # context of the sections `rows` and `draft`
    prompt_tokens: int = 0  # of the generations
    generated_tokens: int = 0
    rounds: dict[str, int] = field(default_factory=dict)  # section -> number of rounds
    bandwidth: Bandwidth | None = None
    prefill: list[Prefill] = field(default_factory=list)
    decode: list[Decode] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    draft: list[Draft] = field(default_factory=list)
    generate: list[Generate] = field(default_factory=list)
    identical: bool | None = None  # whether the texts of all generations are equal
    skipped: dict[str, str] = field(default_factory=dict)  # section -> why
