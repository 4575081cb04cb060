"""The results of a sweep."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Quality:
    """A target's scores of the text, per token; uncertainties are standard errors."""

    perplexity: float
    perplexity_uncertainty: float
    divergence: (
        float | None
    )  # mean KL(P || Q) in nats, with P of the reference and Q of this target
    divergence_uncertainty: float | None
    same_best: float | None  # share of positions where both have the same likeliest token


@dataclass
class Target:
    name: str
    path: str
    bytes: int
    quality: Quality | None
    tokens_per_second: float  # without a drafter: median
    best: float
    worst: float


@dataclass
class Drafter:
    name: str
    path: str
    bytes: int


@dataclass
class Cell:
    """A target with a drafter."""

    target: str
    drafter: str
    rounds: int
    drafted_at: list[int]  # [i]: rounds that proposed an (i+1)-th token
    accepted_at: list[int]  # [i]: rounds whose first i+1 proposals were all accepted
    cumulative: list[float]  # accepted_at / drafted_at
    conditional: list[float | None]  # cumulative, divided by the previous one; None after 0
    tokens_per_round: float
    tokens_per_second: float  # median
    best: float
    worst: float
    speedup: float  # ratio of the medians to the target without a drafter


@dataclass
class SweepReport:
    version: str
    compiler: str
    machine: dict[str, Any]
    threads: int
    device: str
    isa: str
    kv_type: str
    text: str  # its source
    text_tokens: int
    depth: int
    prompts: int
    prompt_tokens: int
    tokens: int  # tokens generated after each prompt
    runs: int
    context: int  # of a scored chunk
    chunks: int  # scored
    scored: int  # tokens scored
    reference: str  # name or path of the reference target
    targets: list[Target] = field(default_factory=list)
    drafters: list[Drafter] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    identical: bool = True  # each target's text is the same with every drafter and without
    skipped: dict[str, str] = field(default_factory=dict)  # what -> why

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def acceptance(
    drafted_at: list[int], accepted_at: list[int]
) -> tuple[list[float], list[float | None]]:
    """Returns (cumulative, conditional) by position. A proposal counts as accepted if all before it
    are, so the cumulative share is the share of rounds that got this far. The conditional share,
    its ratio to the previous position, shows how often the drafter is right if it was right so
    far."""
    cumulative = [a / d if d else 0.0 for d, a in zip(drafted_at, accepted_at, strict=True)]
    conditional: list[float | None] = []
    before = 1.0
    for share in cumulative:
        conditional.append(share / before if before else None)
        before = share
    return cumulative, conditional
