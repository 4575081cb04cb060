"""The results and what follows from them. Times are in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...profile import Costs, best_depth, expected_speed
from ..bench.report import Bandwidth, Setup, Timing

ACCEPTANCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass
class Verify(Timing):
    """One target pass."""

    rows: int
    context: int
    ratio: float  # to a pass over one row at the same context


@dataclass
class Draft(Timing):
    """One draft step."""

    step: int  # 0: the first of a round; 1: a later one
    context: int
    ratio: float  # to a pass over one row at the same context


@dataclass
class Choice:
    """The best depth if each draft is the target's choice with probability `acceptance`."""

    acceptance: float
    context: int
    depth: int
    tokens_per_second: float  # expected
    speedup: float  # over plain decoding


@dataclass
class TuneReport(Setup):
    token_bytes: int  # bytes of weights that a token reads
    draft_bytes: int | None  # bytes of weights that a draft step reads
    rounds: int  # number of rounds
    seconds: float  # duration of the measurement
    bandwidth: Bandwidth
    verify: list[Verify]
    draft: list[Draft]  # empty: without a drafter
    choices: list[Choice] = field(default_factory=list)
    profile: str | None = None  # where it was saved

    @property
    def costs(self) -> Costs:
        """The costs in seconds, as stored in profiles."""
        return Costs(
            [(v.rows, v.context, v.ms / 1000) for v in self.verify],
            [(d.step, d.context, d.ms / 1000) for d in self.draft],
        )

    @property
    def contexts(self) -> list[int]:
        return self.costs.contexts


def choices(costs: Costs, acceptances: Sequence[float] = ACCEPTANCES) -> list[Choice]:
    """Returns the choices for every measured context."""
    found = []
    for context in costs.contexts:
        plain = expected_speed(costs, 0.0, 0, context)
        for a in acceptances:
            depth = best_depth(costs, a, context)
            speed = expected_speed(costs, a, depth, context)
            found.append(Choice(a, context, depth, speed, speed / plain))
    return found
