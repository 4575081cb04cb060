"""Limits the number of sequences generated at once; the others wait for their turn."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import suppress

from .errors import busy


class Slots:
    """For use on the event loop's thread. Requests get their turns in order of arrival. For a
    request with several sequences, each further one waits as if it had arrived `count` requests
    later, so that one request cannot take all turns.
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
        """Returns the place of a new request in the order. Raises RequestError if the queue is
        full; otherwise leave() must follow for each of its sequences."""
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
        """Returns when it is the turn of a request's nth sequence; release() must follow."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (arrival + nth * self._count, next(self._ties), turn)
        heapq.heappush(self._queued, place)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it had just got its turn
            turn.cancel()
            raise

    def release(self) -> None:
        self.running -= 1
        self._next()

    def _next(self) -> None:
        while self.running < self._count and self._queued:
            _, _, turn = heapq.heappop(self._queued)
            with suppress(asyncio.InvalidStateError):  # it has been cancelled
                turn.set_result(None)
                self.running += 1
