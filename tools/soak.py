#!/usr/bin/env python3
"""Clients of every kind ask a `gemtp serve` for as long as it is told, which must neither grow nor
change its answers.

    python tools/soak.py [TARGET.gguf [DRAFTER.gguf]] [--minutes M | --requests N] [--clients N]

The clients stream, wait, cancel, vanish, read nothing for a while, ask several questions at once,
send requests that are wrong, and ask for structured output. Every text is compared with the text
of the same request alone, asked of the same server before. Meanwhile memory, file descriptors and
threads of the server are watched. Prints a figure of each at the end, and exits with 1 if a text
differs, an answer is none of the protocol, or something is left over. Linux only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gemtp_native as gemtp

PATIENCE = 300  # seconds for an answer on a busy machine
CONTEXT = 512
WARM_UP = 0.2  # share of the requests after which memory is expected not to grow
MOST_THREADS = 8  # of the server's pools, which start them when they are needed
MOST_GROWTH = 64 << 20  # bytes, of fragments and caches that are still filling
WRONG: list[tuple[int, bytes]] = [
    (400, b"{"),
    (400, b'{"prompt": 5}'),
    (400, b'{"prompt": "x", "temperature": -1}'),
    (400, b'{"prompt": "x", "unknown": 1}'),
    (400, b'{"prompt": "' + b"x" * 100_000 + b'"}'),
    (413, b'"' + b"x" * (5 << 20) + b'"'),
]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


class Failure(Exception):
    """Something that must not be."""


@dataclass
class Question:
    body: dict[str, Any]
    texts: list[str]  # of the same request alone, one for each choice


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, body: bytes) -> tuple[int, Any]:
        connection = self.connect()
        try:
            connection.request("POST", "/v1/completions", body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def usage(self) -> Usage:
        folder = Path(f"/proc/{self.process.pid}")
        status = (folder / "status").read_text()

        def number(name: str) -> int:
            return int(re.findall(rf"{name}:\s*(\d+)", status)[0])

        return Usage(1024 * number("VmRSS"), len(os.listdir(folder / "fd")), number("Threads"))


@dataclass
class Usage:
    memory: int  # resident bytes
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.memory / 2**20:.0f} MiB, {self.descriptors} file descriptors, "
            f"{self.threads} threads"
        )


@dataclass
class Soak:
    server: Server
    questions: list[Question]
    seed: int
    requests: int | None
    deadline: float | None
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def done(self) -> int:
        return self.counts["requests"]

    def _goes_on(self) -> bool:
        if self.failures or self.server.process.poll() is not None:
            return False
        if self.requests is not None and self.done >= self.requests:
            return False
        return self.deadline is None or time.monotonic() < self.deadline

    def client(self, number: int) -> None:
        """Asks until the end, on its own thread."""
        chosen = random.Random(f"{self.seed}-{number}")
        ways = [self._wait, self._stream, self._stream, self._vanish, self._dawdle, self._wrong]
        while self._goes_on():
            way = chosen.choice(ways)
            try:
                way(chosen)
            except Failure as e:
                self.failures.append(f"{way.__name__[1:]}: {e}")
            except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
                self.failures.append(f"{way.__name__[1:]}: {type(e).__name__}: {e}")
            self._count(way.__name__[1:])

    def _count(self, way: str) -> None:
        with self._lock:
            self.counts[way] += 1
            self.counts["requests"] += 1

    def _compare(self, question: Question, texts: list[str]) -> None:
        if texts != question.texts:
            raise Failure(f"{json.dumps(question.body)} gives {texts!r}, alone {question.texts!r}")
        with self._lock:
            self.counts["texts"] += len(texts)

    def _wait(self, chosen: random.Random) -> None:
        question = chosen.choice(self.questions)
        status, answer = self.server.ask(json.dumps(question.body).encode())
        if status == 503:
            return  # the queue is full
        if status != 200:
            raise Failure(f"{status}: {answer}")
        self._compare(question, [choice["text"] for choice in answer["choices"]])

    def _stream(self, chosen: random.Random) -> None:
        question = chosen.choice(self.questions)
        with self._streaming(question) as response:
            if response.status == 503:
                return
            if response.status != 200:
                raise Failure(f"{response.status}: {response.read()!r}")
            texts = [""] * len(question.texts)
            for chunk in _chunks(response):
                for choice in chunk["choices"]:
                    texts[choice["index"]] += choice["text"]
        self._compare(question, texts)

    def _vanish(self, chosen: random.Random) -> None:
        """Goes away: before the answer, or in the middle of it."""
        with self._streaming(chosen.choice(self.questions)) as response:
            for _ in range(chosen.randrange(4)):
                response.readline()

    def _dawdle(self, chosen: random.Random) -> None:
        """Sends the request in pieces and reads late."""
        question = chosen.choice(self.questions)
        body = json.dumps(question.body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        with socket.create_connection(("127.0.0.1", self.server.port), PATIENCE) as s:
            s.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
            for part in (body[:7], body[7:]):
                time.sleep(chosen.random() / 20)
                s.sendall(part)
            if chosen.random() < 0.3:
                return
            time.sleep(chosen.random() / 5)
            with s.makefile("rb") as f:
                status = f.readline().split()[1]
                _, _, data = f.read().partition(b"\r\n\r\n")
        if status == b"503":
            return
        if status != b"200":
            raise Failure(f"{status!r}: {data!r}")
        self._compare(question, [c["text"] for c in json.loads(data)["choices"]])

    def _wrong(self, chosen: random.Random) -> None:
        expected, body = chosen.choice(WRONG)
        status, answer = self.server.ask(body)
        if status != expected or not answer["error"]["message"]:
            raise Failure(f"{body[:60]!r} gives {status}: {answer}")

    @contextmanager
    def _streaming(self, question: Question) -> Iterator[http.client.HTTPResponse]:
        connection = self.server.connect()
        try:
            body = json.dumps({**question.body, "stream": True}).encode()
            connection.request("POST", "/v1/completions", body)
            yield connection.getresponse()
        finally:
            connection.close()


def _chunks(response: http.client.HTTPResponse) -> Iterator[Any]:
    for line in response:
        data = line.strip().removeprefix(b"data: ")
        if data == b"[DONE]":
            return
        if data:
            chunk = json.loads(data)
            if "error" in chunk:
                raise Failure(str(chunk))
            yield chunk
    raise Failure("a stream ended without [DONE]")


def questions(server: Server, count: int, seed: int) -> list[Question]:
    """Random requests, each with its texts alone."""
    chosen = random.Random(seed)
    structured = _has_structure(server)
    out = []
    for i in range(count):
        words = chosen.choices(["def", "mean", "(", "values", ":", "\n", "return", "x"], k=30)
        body: dict[str, Any] = {
            "prompt": " ".join(words[: chosen.randint(1, 30)]),
            "max_tokens": chosen.randint(1, 40),
            "temperature": chosen.choice([0, 0.7, 1.2]),
            "seed": chosen.getrandbits(31),
            "n": chosen.choice([1, 1, 1, 3]),
        }
        if structured and i % 5 == 0:
            body["response_format"] = {"type": "json_object", "schema": SCHEMA}
        status, answer = server.ask(json.dumps(body).encode())
        if status != 200:
            raise Failure(f"{json.dumps(body)} gives {status}: {answer}")
        out.append(Question(body, [choice["text"] for choice in answer["choices"]]))
    return out


def _has_structure(server: Server) -> bool:
    connection = server.connect()
    connection.request("GET", "/props")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return bool(answer["structured"])


@contextmanager
def serving(target: Path, drafter: Path | None, folder: Path) -> Iterator[Server]:
    log = folder / "serve.log"
    command = [sys.executable, "-m", "gemtp_native", "serve", target, "--port", "0"]
    command += ["--context", str(CONTEXT), "--parallel", "4", "--queue", "16"]
    command += ["--drafter", drafter] if drafter else []
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(r"listening on http://\S+:(\d+)\n", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"the server did not start: {log.read_text()}")
            time.sleep(0.05)
        yield Server(process, int(found[1]))
    finally:
        process.terminate()
        process.wait(PATIENCE)
    if b"Traceback" in log.read_bytes():
        raise Failure(f"the server logged a traceback: {log.read_text()}")


def _idle(server: Server, before: Usage) -> Usage:
    """Returns the usage when the server has nothing to do, soon after the last request."""
    deadline = time.monotonic() + 60
    while True:
        usage = server.usage()
        if usage.descriptors <= before.descriptors or time.monotonic() > deadline:
            return usage
        time.sleep(0.2)


def soak(args: argparse.Namespace, server: Server, seed: int) -> list[str]:
    """Runs the clients. Returns what must not be."""
    begin = time.monotonic()
    deadline = None if args.minutes is None else begin + 60 * args.minutes
    run = Soak(server, questions(server, args.questions, seed), seed, args.requests, deadline)
    fresh = server.usage()
    threads = [threading.Thread(target=run.client, args=(i,)) for i in range(args.clients)]
    for thread in threads:
        thread.start()
    warm = peak = fresh
    share = args.requests * WARM_UP if args.requests else 1000
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        usage = server.usage() if server.process.poll() is None else peak
        warm = usage if run.done < share else warm
        peak = max(peak, usage, key=lambda u: u.memory)
    if server.process.poll() is not None:
        return [*run.failures, f"the server ended with {server.process.returncode}"]
    after = _idle(server, fresh)
    ways = ", ".join(f"{way} {n:,}" for way, n in run.counts.items() if way not in _TOTALS)
    print(
        f"{run.done:,} requests ({ways}) in {time.monotonic() - begin:.0f} s, "
        f"{run.counts['texts']:,} texts compared; seed {seed}\n"
        f"fresh: {fresh}\nwarm: {warm}\npeak: {peak}\nafter: {after}",
        flush=True,
    )
    left = []
    if after.descriptors > fresh.descriptors:
        left.append(f"{after.descriptors - fresh.descriptors} file descriptors are left open")
    if after.threads > fresh.threads + MOST_THREADS:
        left.append(f"{after.threads - fresh.threads} threads are left")
    if after.memory > max(warm.memory, fresh.memory) + MOST_GROWTH:
        left.append(f"memory grew by {(after.memory - warm.memory) / 2**20:.0f} MiB")
    return run.failures + left


_TOTALS = ("requests", "texts")


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    target, drafter = args.models or gemtp.demo_models()
    seed = random.SystemRandom().getrandbits(32) if args.seed is None else args.seed
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            serving(target, drafter, Path(folder)) as server,
        ):
            failures = soak(args, server, seed)
    except Failure as e:
        failures = [str(e)]
    for failure in failures[:20]:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=Path, nargs="?", metavar="TARGET.gguf")
    parser.add_argument("drafter", type=Path, nargs="?", metavar="DRAFTER.gguf")
    parser.add_argument("--minutes", type=float, metavar="M", help="(default: 10)")
    parser.add_argument("--requests", type=int, metavar="N", help="end after so many requests")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--questions", type=int, default=60, metavar="N", help="(default: 60)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the requests (default: random)")
    args = parser.parse_args(argv)
    args.models = None if args.target is None else (args.target, args.drafter)
    if args.minutes is None and args.requests is None:
        args.minutes = 10.0
    return args


if __name__ == "__main__":
    sys.exit(main())
