"""A request and its answer, on top of ASGI."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .errors import Header, RequestError

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ONCE = (b"origin", b"authorization", b"content-type", b"content-encoding")
_DISCARD = 64 << 20  # bytes read of an oversized body, so that its sender sees the answer


class Gone(Exception):
    """The client has gone, or does not read."""


class Request:
    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send):
        self.method: str = scope["method"]
        self.path: str = _plain(scope["path"])
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._names = [name for name, _ in scope["headers"]]
        self.arrived = time.perf_counter()
        self.status: int | None = None
        self.extra: list[Header] = []
        """Extra headers of the answer."""
        self._state = scope.get("state", {})
        self._receive = receive
        self._send = send

    # ---------------------------------------------------------------- in

    def check(self) -> None:
        """Raises RequestError for headers that different programs could read in different ways."""
        names = self._names
        twice = next((n for n in _ONCE if names.count(n) > 1), None)
        if twice is not None:
            wrong = f"the header {twice.decode()} comes {names.count(twice)} times; send it once"
        elif b"content-length" in names and b"transfer-encoding" in names:
            wrong = "the request has both Content-Length and Transfer-Encoding; send one of them"
        else:
            return
        self.extra.append((b"connection", b"close"))
        raise RequestError(wrong, code="invalid_http")

    def size(self, limit: int) -> int:
        """Most bytes of the body: the announced length, but at most the limit."""
        length = self.headers.get(b"content-length")
        if length is not None:
            return min(int(length), limit)
        return limit if b"transfer-encoding" in self.headers else 0

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
        announced = int(self.headers.get(b"content-length", 0))
        more = announced <= _DISCARD  # a larger body is not read
        size = 0 if more else announced
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
        """To be called after the body was read; returns when the client has gone."""
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
        """Answers with a small JSON document; large ones are serialized off the event loop."""
        await self.respond_written(dumps(data), status)

    async def respond_written(self, body: bytes, status: int = 200) -> None:
        await self.respond(status, body, b"application/json")

    async def respond_error(self, error: RequestError) -> None:
        await self.respond(error.status, error.body(), b"application/json", error.headers)

    async def begin_events(self) -> None:
        """Begins a stream of server-sent events."""
        await self._start(
            200,
            [
                *self.extra,
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
            ],
        )

    async def events(self, body: bytes, seconds: float, last: bool = False) -> None:
        """Sends events made by `event_data`. Raises Gone if the client reads nothing for
        `seconds`."""
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
        """Drops the connection and all unsent data."""
        abort = self._state.get("abort")
        if abort is not None:
            abort()


def event_data(chunks: Sequence[Any]) -> bytes:
    return b"".join(b"data: " + dumps(chunk) + b"\n\n" for chunk in chunks)


def dumps(data: Any) -> bytes:
    """Serializes data in pieces, because json blocks other threads while it writes one."""
    out: list[str] = []
    _write(data, out, 5)
    return "".join(out).encode("utf-8")


def _write(value: Any, out: list[str], levels: int) -> None:
    if isinstance(value, list) and len(value) > _SLICE:
        for at in range(0, len(value), _SLICE):
            out.append("," if at else "[")
            out.append(_text(value[at : at + _SLICE])[1:-1])
        out.append("]")
    elif isinstance(value, list) and levels and value:
        for i, item in enumerate(value):
            out.append("," if i else "[")
            _write(item, out, levels - 1)
        out.append("]")
    elif isinstance(value, dict) and levels and value:
        for i, (name, item) in enumerate(value.items()):
            out.append(f"{',' if i else '{'}{_text(name)}:")
            _write(item, out, levels - 1)
        out.append("}")
    else:
        out.append(_text(value))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_SLICE = 64  # list elements serialized at once


def _plain(path: str) -> str:
    """Removes redundant slashes."""
    return re.sub("/+", "/", path).rstrip("/") or "/"
