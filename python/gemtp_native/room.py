"""Whole generations wait for each other where the K/V budget has no room for one more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from .base.forking import begins_anew_in_child
from .errors import OutOfMemoryError

if TYPE_CHECKING:
    from .chat.reply import ReplyStream
    from .stream import TextStream

S = TypeVar("S", "TextStream", "ReplyStream")


class Room:
    """Only those that read their stream to the end without pause count: what a caller holds open
    may stay so for ever."""

    def __init__(self) -> None:
        self._running: list[int] = []  # threads of those that have a stream
        self.begin_in_child()
        begins_anew_in_child(self)

    def begin_in_child(self) -> None:
        self._lock = threading.RLock()
        thread = threading.get_ident()  # the only one that a child has
        self._running = [t for t in self._running if t == thread]
        self._waiting: list[Callable[[], object]] = []  # to be called when one of them ends

    @contextmanager
    def stream(self, start: Callable[[], S]) -> Iterator[S]:
        """What ``start`` opens, closed in the end."""
        thread = threading.get_ident()
        left = threading.Event()
        while (stream := self._try(start, thread, left.set, from_loop=False)) is None:
            left.wait()
            left.clear()
        try:
            with stream:
                yield stream
        finally:
            self._leave(thread)

    @asynccontextmanager
    async def astream(self, start: Callable[[], S]) -> AsyncIterator[S]:
        import asyncio  # whoever awaits has it; the others start sooner without

        thread = threading.get_ident()
        left = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(left.set)

        while (stream := self._try(start, thread, wake, from_loop=True)) is None:
            await left.wait()
            left.clear()
        try:
            with stream:
                yield stream
        finally:
            self._leave(thread)

    def _try(
        self, start: Callable[[], S], thread: int, wake: Callable[[], object], from_loop: bool
    ) -> S | None:
        """None: there is no room yet, and ``wake`` will be called."""
        with self._lock:
            try:
                stream = start()
            except OutOfMemoryError:
                # Those of this thread cannot go on while it sleeps, only while it runs a loop.
                if not any(from_loop or other != thread for other in self._running):
                    raise
                self._waiting.append(wake)
                return None
            self._running.append(thread)
            return stream

    def _leave(self, thread: int) -> None:
        with self._lock:
            self._running.remove(thread)
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()
