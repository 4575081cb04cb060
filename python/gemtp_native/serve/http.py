"""A request and its answer, on top of ASGI."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .errors import Header, RequestError

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_DISCARD = 64 << 20  # bytes of a body that is too large, read so that its sender sees the answer


class Gone(Exception):
    """The client has left, or reads nothing."""


class Request:
    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send):
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.arrived = time.perf_counter()
        self.status: int | None = None
        self.extra: list[Header] = []
        """Headers of whatever is answered."""
        self._state = scope.get("state", {})
        self._receive = receive
        self._send = send

    # ---------------------------------------------------------------- in

    async def body(self, limit: int, seconds: float) -> bytes:
        try:
            return await asyncio.wait_for(self._read(limit), seconds)
        except asyncio.TimeoutError:
            self.extra.append((b"connection", b"close"))
            raise RequestError(
                f"the body was not complete after {seconds:g} seconds; send it faster",
                code="timeout",
                status=408,
            ) from None

    async def _read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(part)
            if size <= limit:
                parts.append(part)
            elif size > _DISCARD:
                break
        if size > limit:
            self.extra.append((b"connection", b"close"))
            raise RequestError(
                f"the body is larger than {limit} bytes; send less at once",
                code="body_too_large",
                status=413,
            )
        return b"".join(parts)

    async def until_gone(self) -> None:
        """After the body: returns when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # ---------------------------------------------------------------- out

    @property
    def answered(self) -> bool:
        return self.status is not None

    async def respond(
        self, status: int, body: bytes, kind: bytes = b"", headers: Sequence[Header] = ()
    ) -> None:
        all_headers = [*self.extra, *headers, (b"content-length", str(len(body)).encode())]
        if kind:
            all_headers.append((b"content-type", kind))
        await self._start(status, all_headers)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def respond_json(self, data: Any, status: int = 200) -> None:
        await self.respond(status, dumps(data), b"application/json")

    async def respond_error(self, error: RequestError) -> None:
        await self.respond(error.status, error.body(), b"application/json", error.headers)

    async def begin_events(self) -> None:
        """Of a stream of server-sent events."""
        await self._start(
            200,
            [
                *self.extra,
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
            ],
        )

    async def events(self, chunks: Sequence[Any], seconds: float, last: bool = False) -> None:
        """Gone if the client takes none of it for so long."""
        body = b"".join(b"data: " + dumps(chunk) + b"\n\n" for chunk in chunks)
        if last:
            body += b"data: [DONE]\n\n"
        message = {"type": "http.response.body", "body": body, "more_body": not last}
        try:
            await asyncio.wait_for(self._send(message), seconds)
        except asyncio.TimeoutError:
            self.abort()
            raise Gone from None

    async def end_events(self, error: RequestError) -> None:
        body = b"data: " + error.body() + b"\n\n"
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, status: int, headers: list[Header]) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def abort(self) -> None:
        """Drops the connection, with whatever was not sent yet."""
        abort = self._state.get("abort")
        if abort is not None:
            abort()


def dumps(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
