"""The settings of a measurement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...arguments import MAX_CONTEXT, integer
from ...errors import ArgumentError
from ...options import MAX_DRAFT, MAX_ROWS
from ..settings import EngineSettings

DRAFT_STEPS = 4  # of the round over which a step's time is averaged

SECTIONS = ("bandwidth", "prefill", "decode", "rows", "draft", "generate")

Depth = int | Literal["auto"]


@dataclass(frozen=True)
class BenchSettings(EngineSettings):
    """Lengths are in tokens. None: the defaults, as far as they fit into the model's context.

    Raises ArgumentError for values that are invalid for every model.
    """

    prompts: Sequence[int] | None = None  # prompt lengths for prefill
    contexts: Sequence[int] | None = None  # context lengths for decoding
    rows: Sequence[int] = tuple(range(1, MAX_ROWS + 1))  # rows of a pass
    at: int = 64  # context of the rows and draft sections
    depths: Sequence[Depth] = (0, 1, 2, 3, 5, 7, "auto")  # drafts per round of generations
    tokens: int = 128  # of a generation
    text: str | bytes | Sequence[int] | None = None  # prompt of generations
    runs: int = 5  # interleaved rounds
    budget: float = 60.0  # seconds after which a group begins no further round
    sections: Iterable[str] = SECTIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (
            ("prompts", 1, MAX_CONTEXT),
            ("contexts", 0, MAX_CONTEXT),
            ("rows", 1, MAX_ROWS),
        ):
            values = getattr(self, name)
            if values is not None:
                self._replace(name, _numbers(name, values, low, high))
        if 1 not in self.rows:  # the others are compared with it
            self._replace("rows", (1, *self.rows))
        self._replace("depths", _depths(self.depths))
        for name, low, high in (
            ("at", 1, MAX_CONTEXT),
            ("tokens", 2, MAX_CONTEXT),  # the first one counts as prompt time
            ("runs", 1, 1000),
        ):
            self._replace(name, integer(name, getattr(self, name), low, high))
        if not isinstance(self.budget, (int, float)) or not self.budget >= 0:
            raise ArgumentError(f"budget is {self.budget!r}; it must be a number of seconds")
        self._replace("sections", _sections(self.sections))

    def _replace(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _numbers(name: str, values: Any, low: int, high: int) -> tuple[int, ...]:
    """Returns the values in ascending order, without duplicates."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ArgumentError(f"{name} is {values!r}; it must be a list of numbers")
    numbers = tuple(sorted({integer(f"one of {name}", v, low, high) for v in values}))
    if not numbers:
        raise ArgumentError(f"{name} is empty; name at least one number, or skip the section")
    return numbers


def _depths(values: Any) -> tuple[Depth, ...]:
    """Returns depths in ascending order, with 0 (the reference) first and "auto" last."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ArgumentError(f'depths is {values!r}; it must be a list of numbers and "auto"')
    values = list(values)
    numbers = {0} | {integer("one of depths", v, 0, MAX_DRAFT) for v in values if v != "auto"}
    return (*sorted(numbers), *(("auto",) if "auto" in values else ()))


def _sections(names: Iterable[str]) -> tuple[str, ...]:
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in SECTIONS:
            raise ArgumentError(f"there is no section {name!r}; they are {', '.join(SECTIONS)}")
    if not names:
        raise ArgumentError("no section is left to measure")
    return tuple(s for s in SECTIONS if s in names)
