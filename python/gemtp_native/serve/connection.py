"""uvicorn's connections, with limits on their number and on the time they may be idle."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import RequestError


def protocol(header_timeout: float, connections: int) -> type[H11Protocol]:
    """The class of connections for uvicorn."""

    class Connection(H11Protocol):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.app_state = {**self.app_state, "abort": self._abort}
            self._since = time.monotonic()
            self._deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._await_headers()
            self._make_room()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._busy:
                self._since = time.monotonic()
                self._forget_deadline()
            elif self._deadline is None and not self.transport.is_closing():
                self._await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_deadline()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """Answers input that is not HTTP, in the form of all other errors."""
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = RequestError("this is not a valid HTTP request", code="invalid_http").body()
                headers = [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                    (b"connection", b"close"),
                ]
                answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
                for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        @property
        def _busy(self) -> bool:
            """Whether a request is being answered."""
            return self.cycle is not None and not self.cycle.response_complete

        def _await_headers(self) -> None:
            self._deadline = self.loop.call_later(header_timeout, self._abort)

        def _forget_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _make_room(self) -> None:
            """Drops the connection that has been idle longest, or the new one if all others are
            busy."""
            if len(self.connections) <= connections:
                return
            held = [c for c in self.connections if not c.transport.is_closing()]
            if len(held) > connections:
                idle = [c for c in held if isinstance(c, Connection) and not c._busy]
                min(idle, key=lambda c: c._since)._abort()

        def _abort(self) -> None:
            if self.transport is not None:
                self.transport.abort()

    return Connection
