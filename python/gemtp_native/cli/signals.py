"""Lets SIGTERM and SIGHUP end a command like an error does, removing unfinished files."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_TIDYING = 5.0  # seconds in which further signals are ignored; closing a terminal sends several


@contextlib.contextmanager
def orderly_end() -> Iterator[None]:
    """Raises SystemExit(128 + number) in the block, unless the signal is handled or ignored already
    (nohup ignores SIGHUP). Only a command may do this, never the library in another program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: list[float] = []

    def end(number: int, _: FrameType | None) -> None:
        if first and time.monotonic() - first[0] < _TIDYING:
            return
        first[:] = [time.monotonic()]
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    ours = [n for n in numbers if n is not None and signal.getsignal(n) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:  # ignored during the end, so that the exit code is ours
            signal.signal(number, signal.SIG_IGN if first else signal.SIG_DFL)
