"""Turns: so many sequences are generated at once, the others wait."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import suppress

from .errors import busy


class Slots:
    """For the event loop's thread. Requests get their turns in the order in which they came; of one
    that wants several sequences, each further one waits as if it had come as many requests later as
    run at once, so that nobody takes all turns for himself.
    """

    def __init__(self, count: int, queue: int):
        self._count = count
        self._queue = queue
        self._arrivals = 0
        self._queued: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ties = itertools.count()
        self._admitted = 0
        self.running = 0

    @property
    def waiting(self) -> int:
        return self._admitted - self.running

    def admit(self, sequences: int) -> int:
        """The place of a new request in the order. RequestError if it cannot even wait; otherwise
        leave() has to follow for each of its sequences."""
        if self._admitted + sequences > self._count + self._queue:
            raise busy(
                f"the server is busy: {self.running} sequences run and {self.waiting} wait; "
                "try again later",
                "overloaded",
            )
        self._admitted += sequences
        self._arrivals += 1
        return self._arrivals

    def leave(self) -> None:
        self._admitted -= 1

    async def acquire(self, arrival: int, nth: int) -> None:
        """Returns when it is the turn of a request's nth sequence; release() has to follow."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (arrival + nth * self._count, next(self._ties), turn)
        heapq.heappush(self._queued, place)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # its turn had just come
            turn.cancel()
            raise

    def release(self) -> None:
        self.running -= 1
        self._next()

    def _next(self) -> None:
        while self.running < self._count and self._queued:
            _, _, turn = heapq.heappop(self._queued)
            with suppress(asyncio.InvalidStateError):  # it has gone away
                turn.set_result(None)
                self.running += 1
