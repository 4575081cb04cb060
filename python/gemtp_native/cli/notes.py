"""What the library has to say beside its results, as notes on standard error."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ..base.log import NAME, logger


class _Notes(logging.Handler):
    """Each note once, however often a model is opened; figures each time."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()
        self.waiting: list[str] | None = None  # None: nothing waits

    def emit(self, record: logging.LogRecord) -> None:
        note = record.getMessage()
        if record.name != NAME:
            self._say(f"gemtp: {note}")
        elif note not in self._said:
            self._said.add(note)
            self._say(f"gemtp: note: {note}")

    def _say(self, line: str) -> None:
        if self.waiting is None:
            print(line, file=sys.stderr)
        else:
            self.waiting.append(line)


@contextmanager
def after_the_text() -> Iterator[None]:
    """What the library has to say in the block is said behind it: the text that is shown there
    would be torn, or have it stuck to its end."""
    handlers = [h for h in logger().handlers if isinstance(h, _Notes)]
    for handler in handlers:
        handler.waiting = []
    try:
        yield
    finally:
        for handler in handlers:
            lines, handler.waiting = handler.waiting, None
            for line in lines or ():
                print(line, file=sys.stderr)


@contextmanager
def notes(quiet: bool, verbose: bool = False) -> Iterator[None]:
    """verbose: also what is logged of each model and generation. Warnings of other libraries are
    for programmers, who ask Python for them (-W)."""
    ours = logger()
    details = logger("model")
    details.setLevel(logging.DEBUG if verbose else logging.WARNING)
    handler = logging.NullHandler() if quiet else _Notes()
    ours.addHandler(handler)
    before, ours.propagate = ours.propagate, False
    level = ours.level
    ours.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        ours.setLevel(level)
        details.setLevel(logging.NOTSET)
        ours.propagate = before
        ours.removeHandler(handler)
