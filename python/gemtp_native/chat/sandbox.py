"""Templates of strangers, each rendering in a process of its own with bounds on time and memory."""

from __future__ import annotations

import contextlib
import marshal
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from ..errors import ArgumentError, ModelError
from . import jinja_pool
from .jinja_pool import BoundError, Clock, StartError

SECONDS = 5.0
MAX_SOURCE = 1_000_000

_clock: ContextVar[Clock | None] = ContextVar("gemtp_template_clock", default=None)


@contextlib.contextmanager
def one_clock(seconds: float = SECONDS) -> Iterator[Clock]:
    """All that is rendered within takes no longer; one within another changes nothing."""
    clock = _clock.get()
    if clock is not None:
        yield clock
        return
    clock = Clock(seconds)
    token = _clock.set(clock)
    try:
        yield clock
    finally:
        _clock.reset(token)


class TemplateLimitError(ModelError):
    """A bound that a template has broken; others may fail for some messages only."""


class Template:
    """A template that compiles. `name` stands in sentences: "the chat template of model.gguf"."""

    def __init__(self, source: str, name: str = "the chat template", seconds: float = SECONDS):
        self.name = name
        self._source = source
        self._seconds = seconds
        if len(source) > MAX_SOURCE:
            raise ModelError(f"{name} has {len(source)} characters; at most {MAX_SOURCE} are run")
        self._ask(None, None)

    def render(self, variables: Mapping[str, Any], marks: Mapping[int, str] | None = None) -> str:
        """With marks, for str.translate, in place of characters that messages and tools hold."""
        return self._ask(dict(variables), marks)

    def _ask(self, variables: dict[str, Any] | None, marks: Mapping[int, str] | None) -> str:
        try:
            with one_clock(self._seconds) as clock, jinja_pool.pool.process() as process:
                asked: Any = (self._source, variables, marks, clock.left)
                request = marshal.dumps(asked, 4)
                kind, text = process.ask(request, clock)
        except StartError as e:
            raise ModelError(f"{self.name} runs in a process of its own, and {e}") from None
        except BoundError as e:
            raise TemplateLimitError(f"{self.name} {e}; use another template") from None
        if kind == b"T":
            return text
        sentence = f"{self.name} {' '.join(text.split())[:300]}"
        if kind == b"R":
            raise ArgumentError(sentence)
        raise (TemplateLimitError if kind == b"U" else ModelError)(
            f"{sentence}; use another template"
        )
