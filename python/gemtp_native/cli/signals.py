"""SIGTERM and SIGHUP end a command as an error does: what is unfinished is removed."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_TIDYING = 5.0  # seconds in which further signals are not heard: closing a terminal sends several


@contextlib.contextmanager
def orderly_end() -> Iterator[None]:
    """SystemExit(128 + number) in the block, where nobody has decided otherwise: nohup ignores
    SIGHUP. Only a command may do this, never the library in somebody's program."""
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
        for number in ours:  # once the process ends, nothing keeps it from saying how
            signal.signal(number, signal.SIG_IGN if first else signal.SIG_DFL)
