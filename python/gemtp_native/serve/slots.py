"""Turns: so many sequences are generated at once, the others wait."""

from __future__ import annotations

import asyncio
import heapq
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
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self.running = 0

    @property
    def waiting(self) -> int:
        return sum(not turn.done() for _, _, turn in self._waiting)

    def check(self, sequences: int) -> None:
        """RequestError if so many more cannot even wait."""
        free = self._count - self.running + self._queue - self.waiting
        if sequences > free:
            raise busy(
                f"the server is busy: {self.running} sequences run and {self.waiting} wait; "
                "try again later",
                "overloaded",
            )

    def arrive(self) -> int:
        """The place of a new request in the order."""
        self._arrivals += 1
        return self._arrivals

    async def acquire(self, arrival: int, nth: int) -> None:
        """Returns when it is the turn of a request's nth sequence; release() has to follow."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (arrival + nth * self._count, arrival + nth, turn))
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
        while self.running < self._count and self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            with suppress(asyncio.InvalidStateError):  # it has gone away
                turn.set_result(None)
                self.running += 1
