#!/usr/bin/env python3
"""The two sides of bench_peers.py: llama.cpp's server and gemtp, each in its own process and used
through one interface. If a side ends or does not answer in time, PeerError is raised."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

PATIENCE = 10  # seconds in which a process may end by itself
POLL = 0.02  # seconds between two checks of a loading server


class PeerError(Exception):
    """One sentence: the failure, and the side that failed."""


@dataclass
class Completion:
    tokens: list[int]
    prompt_tokens: int  # computed for this request
    prompt_seconds: float
    decode_seconds: float  # after the first token
    drafted: int
    accepted: int
    log_probs: list[float] = field(default_factory=list)  # of the tokens, if requested

    @property
    def prompt_rate(self) -> float:
        return self.prompt_tokens / self.prompt_seconds

    @property
    def rate(self) -> float:
        return (len(self.tokens) - 1) / self.decode_seconds


class Side(Protocol):
    pid: int
    ready_seconds: float  # from process start until it answers at full speed

    def complete(self, prompt: Sequence[int], tokens: int, depth: Any = None) -> Completion:
        """Completes greedily, ignoring end tokens. depth: drafts per round, if requests can set
        it."""


@contextlib.contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Runs a process that is ended when the block is left in any way."""
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ---------------------------------------------------------------- llama.cpp


@dataclass
class LlamaServer:
    """A llama-server program and its options, which differ between versions."""

    program: str
    extra: Sequence[str] = ()
    timeout: float = 600
    version: str = field(init=False)
    options: str = field(init=False)

    def __post_init__(self) -> None:
        version = self._ask("--version").splitlines()
        self.version = next((line for line in version if "version" in line), "unknown version")
        self.options = self._ask("--help")

    @property
    def has_mtp(self) -> bool:
        return "draft-mtp" in self.options

    def _ask(self, option: str) -> str:
        try:
            done = subprocess.run(
                [self.program, option],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=60,
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise PeerError(f"{self.program} cannot be run: {e}") from None
        if done.returncode:
            line = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
            raise PeerError(f"{self.program} {option} failed: {line}")
        return done.stdout

    def _arguments(
        self, target: Path, threads: int, context: int, port: int, parallel: int
    ) -> list[str]:
        arguments = [self.program, "-m", str(target), "--host", "127.0.0.1", "--port", str(port)]
        arguments += ["-t", str(threads), "-tb", str(threads), "-c", str(context * parallel)]
        arguments += ["-np", str(parallel)]
        for option, *value in (
            ("--no-ui",),
            ("--offline",),
            ("--cache-ram", "0"),  # a cache of earlier prompts would count as memory
            ("--fit", "off"),
        ):
            if f"{option} " in self.options or f"{option}," in self.options:
                arguments += [option, *value]
        return [*arguments, *self.extra]

    @contextlib.contextmanager
    def start(
        self,
        target: Path,
        threads: int,
        context: int,
        drafter: Path | None = None,
        depth: int = 0,
        parallel: int = 1,
    ) -> Iterator[LlamaSide]:
        """Starts a server. context: tokens of each parallel sequence."""
        port = _free_port()
        arguments = self._arguments(target, threads, context, port, parallel)
        if drafter is not None:
            arguments += ["--spec-type", "draft-mtp", "--spec-draft-model", str(drafter)]
            arguments += ["--spec-draft-n-max", str(depth)]
        # Options can also be set by the environment; the measurements must not depend on that.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_ARG_")}
        environment["GGML_NO_BACKTRACE"] = "1"  # otherwise a crash starts a debugger
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            begin = time.perf_counter()
            with running(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            ) as process:
                side = LlamaSide(process, port, log, self.timeout)
                side.await_ready()
                side.ready_seconds = time.perf_counter() - begin
                yield side


@dataclass
class LlamaSide:
    process: subprocess.Popen[str]
    port: int
    log: Any
    timeout: float
    ready_seconds: float = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    def await_ready(self) -> None:
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise PeerError(f"llama-server ended while loading: {self._last_words()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._request("GET", "/health", None, 5)[0] == 200:
                    return
            time.sleep(POLL)
        raise PeerError(f"llama-server was not ready within {self.timeout:g} seconds")

    def complete(
        self, prompt: Sequence[int], tokens: int, depth: Any = None, log_probs: bool = False
    ) -> Completion:
        body: dict[str, Any] = {
            "prompt": list(prompt),
            "n_predict": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
            "return_tokens": True,
        }
        if log_probs:
            body["n_probs"] = 1
        try:
            status, answer = self._request("POST", "/completion", body, self.timeout)
        except TimeoutError:
            raise PeerError(f"llama-server gave no answer in {self.timeout:g} seconds") from None
        except (OSError, http.client.HTTPException) as e:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            raise PeerError(f"llama-server gave no answer ({e}): {self._last_words()}") from None
        try:
            parsed = json.loads(answer)
            timings = parsed["timings"]
            completion = Completion(
                tokens=parsed["tokens"],
                prompt_tokens=timings["prompt_n"],
                prompt_seconds=timings["prompt_ms"] / 1000,
                decode_seconds=timings["predicted_ms"] / 1000,
                drafted=timings.get("draft_n", 0),
                accepted=timings.get("draft_n_accepted", 0),
                log_probs=[p["logprob"] for p in parsed.get("completion_probabilities", ())],
            )
        except (ValueError, KeyError, TypeError):
            text = " ".join(answer.decode(errors="replace").split())[:200]
            raise PeerError(f"llama-server answered {status}: {text}") from None
        return _checked("llama-server", completion, prompt, tokens)

    def _request(self, method: str, path: str, body: Any, timeout: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _last_words(self) -> str:
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
        return (errors or lines or ["it said nothing"])[-1][-300:]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


# ---------------------------------------------------------------- gemtp


@contextlib.contextmanager
def start_own(
    target: Path, threads: int, context: int, drafter: Path | None = None, timeout: float = 600
) -> Iterator[OwnSide]:
    import gemtp_native

    options = {
        "target": str(target),
        "drafter": None if drafter is None else str(drafter),
        "threads": threads,
        "context": context,
    }
    package = str(Path(gemtp_native.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    path = package if not inherited else os.pathsep.join([package, inherited])
    begin = time.perf_counter()
    with running(
        [sys.executable, __file__, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        side = OwnSide(process, timeout)
        side.read()
        side.ready_seconds = time.perf_counter() - begin
        yield side


@dataclass
class OwnSide:
    process: subprocess.Popen[str]
    timeout: float
    ready_seconds: float = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    def complete(self, prompt: Sequence[int], tokens: int, depth: Any = None) -> Completion:
        request = {"prompt": list(prompt), "tokens": tokens, "depth": depth or 0}
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # read() reports what happened
            print(json.dumps(request), file=self.process.stdin, flush=True)
        return _checked("gemtp", Completion(**self.read()), prompt, tokens)

    def read(self) -> Any:
        late = threading.Timer(self.timeout, self.process.kill)
        late.daemon = True
        late.start()
        assert self.process.stdout
        line = self.process.stdout.readline()
        in_time = not late.finished.is_set()
        late.cancel()
        if line:
            answer = json.loads(line)
            if "error" in answer:
                raise PeerError(f"gemtp: {answer['error']}")
            return answer
        if not in_time:
            raise PeerError(f"gemtp gave no answer in {self.timeout:g} seconds")
        raise PeerError(f"gemtp ended with exit code {self.process.wait()}")


def _checked(side: str, completion: Completion, prompt: Sequence[int], tokens: int) -> Completion:
    if len(completion.tokens) != tokens:
        raise PeerError(
            f"{side} generated {len(completion.tokens)} tokens where {tokens} were asked for, "
            f"after {len(prompt)}"
        )
    return completion


def serve(options: dict[str, Any]) -> None:
    """The process of an OwnSide: reads and writes lines of JSON."""
    import gemtp_native

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), flush=True)

    try:
        model = gemtp_native.Model(**options)
        model.generate([1, 1], max_tokens=1, draft=0)  # warm-up, like llama-server's
        say({})
        for line in sys.stdin:
            request = json.loads(line)
            out = model.generate(
                request["prompt"],
                max_tokens=request["tokens"],
                draft=request["depth"],
                ignore_eos=True,
            )
            say(
                {
                    "tokens": out.tokens,
                    "prompt_tokens": out.stats.prompt_tokens - out.stats.cached_tokens,
                    "prompt_seconds": out.stats.prompt_seconds,
                    "decode_seconds": out.stats.decode_seconds,
                    "drafted": out.stats.drafted,
                    "accepted": out.stats.accepted,
                }
            )
    except gemtp_native.Error as e:
        say({"error": str(e)})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve(json.loads(sys.argv[1]))
