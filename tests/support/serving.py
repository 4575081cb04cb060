"""A `gemtp serve` process for tests, and functions for whole and hand-written requests."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemtp_native

PATIENCE = 60
CALM = {"GEMTP_API_KEY": ""}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """Checks the form of an error and returns it."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert "\n" not in error["message"]
        assert len(error["message"]) < 400
        return error


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        body: Any = None,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        """Sends a request. body: bytes are sent unchanged, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(
                method or ("GET" if body is None else "POST"), path, data, headers or {}
            )
            response = connection.getresponse()
            return Answer(
                response.status,
                {k.lower(): v for k, v in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def complete(self, prompt: Any, **more: Any) -> dict[str, Any]:
        answer = self.ask("/v1/completions", {"prompt": prompt, **more})
        assert answer.status == 200, answer.body
        return answer.json

    def chat(self, messages: Any, **more: Any) -> dict[str, Any]:
        answer = self.ask("/v1/chat/completions", {"messages": messages, **more})
        assert answer.status == 200, answer.body
        return answer.json

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """Returns the chunks of an answer that ended normally."""
        answer = self.ask(path, {"stream": True, **body})
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = events(answer.body)
        assert lines[-1] == "[DONE]"
        return [json.loads(line) for line in lines[:-1]]

    def metric(self, name: str) -> float:
        text = self.ask("/metrics").body.decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
        assert found, name
        return float(found[1])

    def wait_for(self, name: str, value: float, seconds: float = 10) -> float:
        """Waits for a metric to have the value, and returns the seconds this took."""
        begin = time.monotonic()
        while self.metric(name) != value:
            assert time.monotonic() - begin < seconds, f"{name} is {self.metric(name)}"
            time.sleep(0.005)
        return time.monotonic() - begin

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def post(self, path: str, body: Any) -> socket.socket:
        """Sends a request without reading its answer."""
        data = json.dumps(body).encode()
        s = self.connect()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        s.sendall(head.encode() + data)
        return s


def events(body: bytes) -> list[str]:
    """Returns the data of server-sent events."""
    out = []
    for event in body.decode().split("\n\n"):
        if event:
            assert event.startswith("data: ")
            out.append(event.removeprefix("data: "))
    return out


@contextmanager
def serving(folder: Path, target: Path, *options: Any, **environment: str) -> Iterator[Server]:
    command = ["-m", "gemtp_native", "serve", target, "--port", 0, "--threads", 1, *options]
    with _started(folder, command, environment) as server:
        yield server


@contextmanager
def limited(folder: Path, **settings: Any) -> Iterator[Server]:
    """Runs a server of the shipped pair, with members of Settings."""
    script = Path(__file__).parent / "serve_limits.py"
    with _started(folder, [script, json.dumps(settings)], {}) as server:
        yield server


@contextmanager
def _started(folder: Path, command: list[Any], environment: dict[str, str]) -> Iterator[Server]:
    log = folder / f"serve-{time.monotonic_ns()}.log"
    package = str(Path(gemtp_native.__file__).parent.parent)
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, *(str(part) for part in command)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            text=True,
            env={**os.environ, **CALM, "PYTHONPATH": package, **environment},
        )
    try:
        yield Server(process, _port(process, log), log)
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[str], log: Path) -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = re.search(r"listening on http://\S+:(\d+)\n", log.read_text())
        if found:
            return int(found[1])
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"the server did not start: {log.read_text()}")
