"""Prints the library's log messages as notes on standard error."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ..base.log import NAME, logger


class _Notes(logging.Handler):
    """Prints each note once, however often a model is opened, and figures each time."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()
        self.waiting: list[str] | None = None  # None: notes are not held back

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
    """Delays notes of the library to the end of the block, so that they do not interrupt the text
    printed in it."""
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
    """Prints notes in the block. verbose: also log messages about each model, generation and
    request.
    Warnings of other libraries are for programmers, who can enable them with Python's -W."""
    ours = logger()
    details = [logger("model"), logger("serve.requests")]
    for each in details:
        each.setLevel(logging.DEBUG if verbose else logging.WARNING)
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
        for each in details:
            each.setLevel(logging.NOTSET)
        ours.propagate = before
        ours.removeHandler(handler)
