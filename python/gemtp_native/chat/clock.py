"""The limit on the time that the templates of a prompt take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from ..errors import ModelError

SECONDS = 5.0


class Clock:
    """The time limit shared by related renderings; waiting for a process does not count."""

    def __init__(self, seconds: float):
        self.seconds = self.left = seconds


_clock: ContextVar[Clock | None] = ContextVar("gemtp_template_clock", default=None)


@contextlib.contextmanager
def one_clock(seconds: float = SECONDS) -> Iterator[Clock]:
    """Limits the total time of all renderings inside; a nested call has no effect."""
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
    """Raised if a template exceeds a limit; other errors may concern only some messages."""
