"""Replaces `gemtp serve` in tests of the page: scripted answers, and failures that a real server
cannot produce on command."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent.parent / "python" / "gemtp_native" / "page"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'"
)
PROPS = {
    "model": "gemma-4-E2B-it-Q4_K_M",
    "context": 8192,
    "threads": 4,
    "isa": "avx2",
    "drafter": True,
    "version": "0",
    "chat": True,
    "mode": "chat",
    "structured": True,
    "auth": False,
    "parallel": 4,
    "max_tokens": None,
    "default_generation_settings": {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "model_sampling": {},
}


@dataclass
class Script:
    """The server's behaviour. Tests change it while the server runs."""

    text: str | Callable[[dict[str, Any]], str] = "Hello there."
    reasoning: str = ""
    prompt: tuple[int, float] | None = None  # prompt tokens; seconds to process them
    prompt_tokens: int = 17  # as the usage has them
    round_seconds: float = 0.0
    break_after: int | None = None  # rounds until the connection breaks
    error_after: int | None = None  # rounds until an error is sent in the stream
    refuse: tuple[int, str, dict[str, str]] | None = None  # status, message, headers of an answer
    key: str | None = None
    props: dict[str, Any] = field(default_factory=lambda: dict(PROPS))


def rounds(text: str, draft: object, kind: str) -> Iterator[list[dict[str, Any]]]:
    """Splits text into tokens and these into rounds, always in the same way."""
    pieces = re.findall(r"\s?\w{1,6}|\s|[^\w\s]", text)
    place = 0
    length = 0
    while place < len(pieces):
        depth = 0 if draft == 0 else (3, 0, 5, 1, 2, 4)[length % 6]
        source = ("drafter", "drafter", "lookup", "drafter", "grammar")[length % 5]
        taken = pieces[place : place + depth + 1]
        yield [
            {
                "id": place + i,
                "text": piece,
                "kind": kind,
                "source": source if i < len(taken) - 1 else "target",
                "step": i + 1 if i < len(taken) - 1 else 0,
            }
            for i, piece in enumerate(taken)
        ]
        place += len(taken)
        length += 1


class FakeServer:
    """Serves the page and the script on a free port of the loopback until it is closed."""

    def __init__(self, script: Script | None = None):
        self.script = script or Script()
        self.requests: list[tuple[str, str, Any]] = []  # (method, path, body)
        self.gone = threading.Event()  # a client left in the middle of an answer
        owner = self

        class Handler(_Handler):
            server_state = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def bodies(self) -> list[Any]:
        """Returns the bodies of requests for answers."""
        return [body for method, _, body in self.requests if method == "POST"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_state: FakeServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def script(self) -> Script:
        return self.server_state.script

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server_state.requests.append(("GET", path, None))
        if path == "/health":
            self._json(200, {"status": "ok"})
        elif path == "/props":
            self._json(200, {**self.script.props, "auth": self.script.key is not None})
        elif path == "/v1/models":
            if self._allowed():
                self._json(200, {"object": "list", "data": [{"id": self.script.props["model"]}]})
        else:
            self._file(path)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server_state.requests.append(("POST", self.path, body))
        if not self._allowed():
            return
        if self.script.refuse:
            status, message, headers = self.script.refuse
            self._json(status, {"error": {"message": message}}, headers)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            self._answer(body)
        except (BrokenPipeError, ConnectionResetError):
            self.server_state.gone.set()

    def _answer(self, body: dict[str, Any]) -> None:
        script = self.script
        chat = self.path == "/v1/chat/completions"
        if script.prompt:
            total, took = script.prompt
            for done in range(0, total, max(total // 8, 1)):
                self._event(chat, {"prompt": {"done": done, "total": total}})
                time.sleep(took / 8)
        text = script.text(body) if callable(script.text) else script.text
        begun = body["messages"][-1] if chat else {"role": "user"}
        thoughts = script.reasoning
        if begun["role"] == "assistant":  # the script goes on behind what is there
            thoughts = "" if begun["content"] else thoughts.removeprefix(begun["reasoning_content"])
            text = text.removeprefix(begun["content"])
        plan = [*rounds(thoughts, body["draft"], "reasoning")] if thoughts else []
        plan += rounds(text, body["draft"], "content")
        began = time.perf_counter()
        count = 0
        for number, tokens in enumerate(plan):
            if script.break_after == number:
                self.connection.close()
                return
            if script.error_after == number:
                self._send({"error": {"message": "The model met a number that is none"}})
                return
            if script.round_seconds:
                time.sleep(script.round_seconds)
            tokens = tokens[: body["max_tokens"] - count]
            count += len(tokens)
            seconds = time.perf_counter() - began
            more = {"tokens": tokens, "round": number + 1, "t": seconds, "drafted": len(tokens)}
            self._event(chat, more, "".join(token["text"] for token in tokens))
            if count >= body["max_tokens"]:
                break
        whole = count == sum(len(tokens) for tokens in plan)
        self._end("stop" if whole else "length", count, time.perf_counter() - began, len(plan))

    def _event(self, chat: bool, gemtp: dict[str, Any], text: str = "") -> None:
        kinds = {token["kind"] for token in gemtp.get("tokens", [])}
        member = "reasoning_content" if kinds == {"reasoning"} else "content"
        choice = {"index": 0, "delta": {member: text}} if chat else {"index": 0, "text": text}
        self._send({"choices": [{**choice, "finish_reason": None}], "gemtp": gemtp})

    def _end(self, finish: str, count: int, seconds: float, passes: int) -> None:
        end = {"index": 0, "delta": {}, "text": "", "finish_reason": finish}
        timings = {
            "prompt_n": 12,
            "prompt_ms": 30.0,
            "cache_n": 5,
            "predicted_n": count,
            "predicted_ms": 1e3 * seconds,
            "predicted_per_second": count / max(seconds, 1e-9),
            "draft_n": count,
            "draft_n_accepted": count - passes,
        }
        usage = {"prompt_tokens": self.script.prompt_tokens, "completion_tokens": count}
        self._send({"choices": [end], "usage": usage, "timings": timings})
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, data: object) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def _allowed(self) -> bool:
        wanted = self.script.key
        if wanted is None or self.headers.get("Authorization") == f"Bearer {wanted}":
            return True
        self._json(401, {"error": {"message": "Wrong or missing API key"}})
        return False

    def _json(self, status: int, data: object, headers: dict[str, str] | None = None) -> None:
        self._bytes(status, "application/json", json.dumps(data).encode(), headers or {})

    def _file(self, path: str) -> None:
        file = PAGE / (path.lstrip("/") or "index.html")
        if file.parent != PAGE or not file.is_file():
            self._json(404, {"error": {"message": "Not found"}})
            return
        policy = {"Content-Security-Policy": POLICY}
        self._bytes(200, f"{TYPES[file.suffix]}; charset=utf-8", file.read_bytes(), policy)

    def _bytes(self, status: int, kind: str, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
