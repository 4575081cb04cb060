"""The settings of a measurement."""

from __future__ import annotations

from dataclasses import dataclass

from ...arguments import MAX_CONTEXT, integer
from ...errors import ArgumentError
from ..settings import EngineSettings


@dataclass(frozen=True)
class TuneSettings(EngineSettings):
    """Raises ArgumentError for values that are invalid for every model."""

    context: int | None = None
    """A second context length to measure, besides a short one; 0: no second one; None: 4096, or as
    many tokens as the model can hold."""
    budget: float = 20.0
    """Seconds after which no further round begins; at least one round is run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context is not None:
            object.__setattr__(self, "context", integer("context", self.context, 0, MAX_CONTEXT))
        if type(self.budget) not in (int, float) or not self.budget >= 0:  # NaN, too
            raise ArgumentError(f"budget is {self.budget!r}; it must be a number of seconds")
