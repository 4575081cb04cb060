"""Limits the bytes of request bodies held at once, and returns freed memory to the system."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from .errors import busy

SMALL = 64 << 10
"""Bodies up to this many bytes never wait."""
_TRIM = 1 << 20  # bodies from this size on: return freed memory


class Bodies:
    """For use on the event loop's thread. Large bodies are read while the limit allows and count
    until their request is answered. Others wait in order of arrival."""

    def __init__(self, limit: int, trim: Callable[[], object]):
        self._limit = limit
        self._trim = trim
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def room(self, size: int, seconds: float) -> AsyncIterator[None]:
        """Reserves `size` bytes; raises RequestError if they are not available within `seconds`."""
        if size <= SMALL:
            yield
            return
        size = min(size, self._limit)
        await self._wait(size, seconds)
        try:
            yield
        finally:
            self._held -= size
            self._next()
            if size >= _TRIM and not self._held:
                self._trim()

    async def _wait(self, size: int, seconds: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._next()
        try:
            await asyncio.wait_for(asyncio.shield(turn), seconds)
        except (asyncio.TimeoutError, asyncio.CancelledError) as e:
            if turn.done():
                self._held -= size  # it had just been admitted
            turn.cancel()
            self._next()
            if isinstance(e, asyncio.CancelledError):
                raise
            raise busy(
                "the server is busy with large requests; try again later", "overloaded"
            ) from None

    def _next(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if self._held + size > self._limit:
                return
            self._waiting.popleft()
            self._held += size
            turn.set_result(None)


def give_back() -> None:
    """Returns freed memory to the system; glibc keeps it otherwise."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
