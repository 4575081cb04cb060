"""The end of the interpreter, for threads that it does not wait for: daemon threads.

What Python closes when it ends may be in use by such a thread, which would tell so on stderr. It
sleeps until Python has ended, as threads that come back from the core do (csrc/api/python/gil.h).
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from ..errors import CancelledError
from .forking import begins_anew_in_child

__all__ = ["at_end", "finished_before_end", "sleep_at_end", "sleeping_at_end"]

_LONGEST = 2.0  # seconds that the end takes, unless an exit handler waits for a thread that sleeps
_FINISHING = 1.0  # seconds that the end waits for calls of finished_before_end()

_ended_by: int | None = None  # the thread whose exit handlers run


class _Calls:
    """Those that are in finished_before_end()."""

    def __init__(self) -> None:
        self.begin_in_child()
        begins_anew_in_child(self)

    def begin_in_child(self) -> None:
        self.count = 0
        self.changed = threading.Condition()


_calls = _Calls()


def at_end(close: Callable[[], None]) -> None:
    """``close()`` is called when the interpreter ends; from then on other threads sleep."""

    def end() -> None:
        global _ended_by
        with _calls.changed:
            _ended_by = threading.get_ident()
        close()

    atexit.register(end)


def sleep_at_end() -> None:
    """Does nothing before the end. Otherwise does not come back, unless somebody waits for this
    thread: then it raises CancelledError."""
    if _has_ended():
        _sleep()


def _has_ended() -> bool:
    """For this thread."""
    return _ended_by not in (None, threading.get_ident())


@contextlib.contextmanager
def finished_before_end() -> Iterator[None]:
    """Around calls into a library that lets other threads run meanwhile and does not survive that
    Python has ended when it comes back, as those written in Rust. The end waits for them, and those
    that begin later sleep."""
    with _calls.changed:
        ended = _has_ended()
        _calls.count += not ended
    if ended:
        _sleep()
    try:
        yield
    finally:
        with _calls.changed:
            _calls.count -= 1
            _calls.changed.notify_all()


def _finish() -> None:
    with _calls.changed:
        _calls.changed.wait_for(lambda: _calls.count == 0, _FINISHING)


at_end(_finish)


@contextlib.contextmanager
def sleeping_at_end() -> Iterator[None]:
    """Around what starts threads: no more of them are started shortly before exit handlers run."""
    try:
        yield
    except RuntimeError as e:
        ends_it = threading.current_thread() is threading.main_thread()
        if "shutdown" in str(e) and not ends_it:
            _sleep()
        raise


def _sleep() -> None:
    time.sleep(_LONGEST)
    raise CancelledError("Python is ending")
