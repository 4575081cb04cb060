"""Events from worker threads to the event loop about one request."""

from __future__ import annotations

import asyncio
import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The reader has gone."""


class Channel(Generic[T]):
    """A queue from several threads to one reader on the event loop. A thread that puts more into it
    than it holds waits until the reader has taken it. ``end`` replaces unread items by an
    exception.
    """

    def __init__(self, limit: int):
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._items: list[T] = []
        self._size = 0
        self._changed = threading.Condition()
        self._ready = asyncio.Event()
        self._end: BaseException | None = None

    def put(self, item: T, size: int) -> None:
        """Called on worker threads. Raises Closed after the end."""
        with self._changed:
            while self._size >= self._limit and self._end is None:
                self._changed.wait()
            if self._end is not None:
                raise Closed
            wake = not self._items
            self._items.append(item)
            self._size += size
        if wake:
            self._wake()

    def end(self, reason: BaseException) -> None:
        """Ends the channel. Any thread may call it; the first reason counts."""
        with self._changed:
            if self._end is None:
                self._end = reason
            self._changed.notify_all()
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:  # the loop has ended
            raise Closed from None

    async def get(self) -> list[T]:
        """Returns all items that have arrived, at least one, or raises the reason of the end."""
        while True:
            with self._changed:
                if self._end is not None:
                    # The raised exception refers to frames that refer to this channel; replacing it
                    # breaks the cycle, so that everything can be freed.
                    reason, self._end = self._end, Closed()
                    raise reason
                if self._items:
                    items, self._items = self._items, []
                    self._size = 0
                    self._changed.notify_all()
                    return items
                self._ready.clear()
            await self._ready.wait()
