"""What the library has to say beside its results, as notes on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = "gemtp_native"


class _Notes(logging.Handler):
    """Each note once, however often a model is opened; figures each time."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        note = record.getMessage()
        if record.name != LOGGER:
            print(f"gemtp: {note}", file=sys.stderr)
        elif note not in self._said:
            self._said.add(note)
            print(f"gemtp: note: {note}", file=sys.stderr)


@contextmanager
def notes(quiet: bool, verbose: bool = False) -> Iterator[None]:
    """verbose: also what is logged of each model and generation."""
    logger = logging.getLogger(LOGGER)
    details = logging.getLogger(f"{LOGGER}.model")
    details.setLevel(logging.DEBUG if verbose else logging.WARNING)
    handler = logging.NullHandler() if quiet else _Notes()
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        details.setLevel(logging.NOTSET)
        logger.propagate = before
        logger.removeHandler(handler)
