"""Requests to the server as ASGI messages: any method, path, headers and body. The answer is whole,
has a status of the protocol that is never 500, and an error is one sentence.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import gemtp_native as gemtp
from gemtp_native.serve.app import App
from gemtp_native.serve.settings import ServerSettings
from harness import Choices, check_sentence, folder
from scripted_model import scripted_model

CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
CHAT = {
    "model": "gemtp",
    "messages": [
        {"role": "system", "content": "brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "5"},
    ],
    "max_tokens": 3,
    "temperature": 0.5,
    "seed": 1,
    "stop": ["x"],
    "logprobs": True,
    "top_logprobs": 2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "logit_bias": {"5": -1},
    "response_format": {"type": "text"},
    "tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}],
    "tool_choice": "auto",
    "n": 1,
}
COMPLETION = {
    "prompt": ["the", [2, 5, 9]],
    "max_tokens": 3,
    "echo": True,
    "logprobs": 1,
    "n": 2,
    "presence_penalty": 0.1,
    "stream": False,
    "ignore_eos": True,
}
PATHS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/tokenize": {"content": "the <bos>", "add_special": True, "with_pieces": True},
    "/detokenize": {"tokens": [2, 5], "special": True},
}
OTHER_PATHS = ["/", "/health", "/props", "/metrics", "/v1/models", "/v1/models/x", "/nowhere", "*"]
HEADERS = [
    (b"host", b"localhost"),
    (b"host", b"[localhost].evil.com"),
    (b"host", b"[::1]:80"),
    (b"origin", b"http://["),
    (b"origin", b"http://localhost:1"),
    (b"origin", b"null"),
    (b"authorization", b"Bearer \xff"),
    (b"content-type", b"text/plain"),
    (b"content-encoding", b"gzip"),
    (b"if-none-match", b'"x", W/"y"'),
    (b"access-control-request-method", b"POST"),
]
STATUSES = {200, 204, 304, 400, 401, 403, 404, 405, 408, 413, 415, 421, 429, 503, 507}


@dataclass
class Client:
    """The other end: it sends the body in pieces, and may vanish."""

    pieces: list[bytes]
    vanishes: bool
    status: int | None = None
    body: bytes = b""
    complete: bool = False
    headers: dict[bytes, bytes] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> dict[str, Any]:
        if self.pieces:
            piece = self.pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}
        if not self.vanishes:
            await self.done.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert self.status is None, "a second answer"
            self.status = message["status"]
            self.headers = dict(message["headers"])
            return
        assert self.status is not None
        assert not self.complete, "more after the end"
        self.body += message.get("body", b"")
        self.complete = not message.get("more_body", False)


@cache
def _app() -> tuple[App, asyncio.AbstractEventLoop]:
    model = gemtp.Model(scripted_model(folder() / "scripted.gguf"), threads=1, context=512)
    settings = ServerSettings(parallel=2, max_tokens=4, max_body=1 << 16)
    return App(model, settings), asyncio.new_event_loop()


def one_input(data: bytes) -> None:
    app, loop = _app()
    scope, client = _request(Choices(data))
    loop.run_until_complete(asyncio.wait_for(app(scope, client.receive, client.send), 120))
    if client.vanishes and not client.complete:
        return
    _check(client, scope)


def _request(c: Choices) -> tuple[dict[str, Any], Client]:
    path = c.one_of([*PATHS] * 3 + OTHER_PATHS)
    method = "POST" if path in PATHS else "GET"
    if c.below(8) == 0:
        method = c.one_of(["GET", "POST", "HEAD", "OPTIONS", "PUT", "X\u00e9"])
    headers = [(b"host", b"127.0.0.1")]
    if c.below(6) == 0:
        headers = [c.one_of(HEADERS) for _ in range(c.below(5))]
    vanishes = c.below(8) == 0
    body = _body(c, PATHS.get(path)) if method in ("POST", "PUT") else b""
    if method in ("POST", "PUT"):
        announced = (b"content-length", str(len(body)).encode())
        headers.append(announced if c.below(4) else (b"transfer-encoding", b"chunked"))
    cut = c.below(max(1, len(body)))
    client = Client([body[:cut], body[cut:]], vanishes)
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "state": {}}
    return scope, client


def _body(c: Choices, sound: Any) -> bytes:
    kind = c.below(8)
    if kind == 0:
        return c.rest()
    value = c.value() if kind == 1 or sound is None else c.edited(sound, c.below(4))
    return json.dumps(value, ensure_ascii=c.flag()).encode("utf-8", "surrogatepass")


def _check(client: Client, scope: dict[str, Any]) -> None:
    assert client.complete, "the answer is not whole"
    assert client.status in STATUSES, (client.status, client.body)
    if client.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        *events, last, end = client.body.split(b"\n\n")
        assert end == b""
        for event in [*events, last]:
            assert event.startswith(b"data: ")
            if event != b"data: [DONE]":
                json.loads(event.removeprefix(b"data: "))
        assert last == b"data: [DONE]" or b'"error"' in last
    elif client.headers.get(b"content-type") == b"application/json":
        answer = json.loads(client.body)
        assert client.status < 400 or scope["path"] == "/health" or "error" in answer
        if "error" in answer:
            check_sentence(answer["error"]["message"])
            assert answer["error"]["code"] != "internal", answer
