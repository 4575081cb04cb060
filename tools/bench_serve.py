#!/usr/bin/env python3
"""Throughput of `gemtp serve` and of llama.cpp's server with 1, 2, 4 and 8 clients at once.

In every round each server loads the same files, answers its clients and ends: both never share
memory. A client sends a request, waits for the whole answer and sends the next one. Figures are
tokens of all answers over the time from the first request to the last answer, medians over the
rounds. See docs/serve.md.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_peers import BUSY, number, numbers
from peers import LlamaServer, PeerError, running

OWN, PEER = "gemtp", "llama.cpp"
WARM_UP = 4  # tokens


def main(argv: list[str] | None = None) -> int:
    # A terminated tool must still end the processes it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = _parse(argv)
    try:
        report = Comparison(args).run()
    except KeyboardInterrupt:
        return 130
    except (PeerError, OSError) as e:
        print(f"bench_serve: error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report, ensure_ascii=False) if args.json else text(report))
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=Path, metavar="TARGET.gguf")
    parser.add_argument("drafter", type=Path, metavar="DRAFTER.gguf", nargs="?")
    parser.add_argument("--llama-server", metavar="PATH", help="(default: the one on PATH)")
    parser.add_argument("--only-own", action="store_true", help="without llama.cpp")
    parser.add_argument(
        "--server-args", type=shlex.split, default=[], metavar="ARGS", help="more for llama-server"
    )
    parser.add_argument("--threads", type=number(1, 1024), metavar="N", help="(default: all)")
    parser.add_argument(
        "--clients", type=numbers(1, 64), default=[1, 2, 4, 8], metavar="N,N",
        help="(default: 1,2,4,8)",
    )  # fmt: skip
    parser.add_argument(
        "--depths", type=numbers(0, 15), default=[3], metavar="N,N",
        help="drafts a round of llama.cpp, which does not choose by itself; 0: none (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--plain", action="store_true", help="also gemtp without drafts, and llama.cpp so"
    )
    parser.add_argument("--runs", type=number(1, 100), default=3, metavar="N", help="(default: 3)")
    parser.add_argument(
        "--requests", type=number(1, 100), default=1, metavar="N", help="of a client (default: 1)"
    )
    parser.add_argument(
        "--tokens", type=number(2, 65536), default=48, metavar="N", help="(default: 48)"
    )
    parser.add_argument(
        "--prompt", type=number(1, 65536), default=16, metavar="N", help="tokens (default: 16)"
    )
    parser.add_argument(
        "--timeout", type=number(1, 86400), default=600, metavar="SECONDS", help="(default: 600)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- the servers


@dataclass(frozen=True)
class Setting:
    """The command line of a server, and the members of its requests."""

    side: str
    drafts: str
    depth: int = 0
    request: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.side}, {self.drafts}"


@contextlib.contextmanager
def own_server(
    target: Path, drafter: Path | None, threads: int, context: int, parallel: int, timeout: float
) -> Iterator[int]:
    """Runs `gemtp serve` and yields its port."""
    import gemtp_native

    command = [sys.executable, "-m", "gemtp_native", "serve", str(target), "--port", "0"]
    command += ["--threads", str(threads), "--context", str(context), "--parallel", str(parallel)]
    if drafter is not None:
        command += ["--drafter", str(drafter)]
    package = str(Path(gemtp_native.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        running(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, "GEMTP_API_KEY": ""},
        ) as process,
    ):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            log.seek(0)
            said = log.read()
            if found := re.search(r"listening on http://\S+:(\d+)\n", said):
                yield int(found[1])
                return
            if process.poll() is not None:
                last = (said.strip().splitlines() or ["it said nothing"])[-1]
                raise PeerError(f"gemtp serve ended: {last}")
            time.sleep(0.05)
        raise PeerError(f"gemtp serve was not ready within {timeout:g} seconds")


def ask(port: int, body: dict[str, Any], timeout: float) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        data = json.dumps(body)
        connection.request("POST", "/v1/completions", data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except TimeoutError:
        raise PeerError(f"a server gave no answer in {timeout:g} seconds") from None
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise PeerError(f"a server gave no answer: {e}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise PeerError(f"a server answered {response.status}: {str(answer)[:200]}")
    return answer


# ---------------------------------------------------------------- the rounds


class Comparison:
    def __init__(self, args: argparse.Namespace):
        import gemtp_native
        from gemtp_native import _core
        from gemtp_native.profile.machine import describe_file, describe_machine

        self.args = args
        self.target = describe_file(args.target)
        self.drafter = None if args.drafter is None else describe_file(args.drafter)
        self.machine = describe_machine()
        self.threads = args.threads or _core.available_cores()
        self.vocab = gemtp_native.Tokenizer(args.target).vocab_size
        self.context = (args.prompt + args.tokens + 64 + 255) // 256 * 256
        self.parallel = max(args.clients)
        self.server = None if args.only_own else self._peer()
        self.settings = self._settings()
        self.failed: dict[str, str] = {}
        self.samples: dict[tuple[str, int], list[float]] = {}
        self.drafts: dict[tuple[str, int], list[int]] = {}
        self.load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None

    def _peer(self) -> LlamaServer:
        program = self.args.llama_server or shutil.which("llama-server")
        if program is None:
            raise PeerError("llama-server is not on PATH; install llama.cpp or pass --llama-server")
        return LlamaServer(program, self.args.server_args, self.args.timeout)

    def _settings(self) -> list[Setting]:
        own, peer = [], []
        if self.args.drafter is not None:
            own.append(Setting(OWN, "auto", request={"draft": "auto"}))
            for depth in self.args.depths:
                peer.append(Setting(PEER, f"{depth} drafts" if depth else "plain", depth))
        if self.args.plain or self.args.drafter is None:
            own.append(Setting(OWN, "plain", request={"draft": 0}))
            if 0 not in self.args.depths or self.args.drafter is None:
                peer.append(Setting(PEER, "plain"))
        return own + ([] if self.server is None else peer)

    def run(self) -> dict[str, Any]:
        for path in filter(None, (self.args.target, self.args.drafter)):
            with path.open("rb", buffering=0) as file:  # so that no side pays for the storage
                while file.read(1 << 24):
                    pass
        for n in range(self.args.runs):
            for setting in reversed(self.settings) if n % 2 else self.settings:
                if setting.name in self.failed:
                    continue
                self._say(f"round {n + 1} of {self.args.runs}: {setting.name}")
                try:
                    self._round(setting, n)
                except PeerError as e:
                    if setting.side == OWN:
                        raise
                    self.failed[setting.name] = str(e)  # the others can still be compared
        return self._report()

    def _say(self, line: str) -> None:
        if not self.args.quiet:
            print(f"bench_serve: {line}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _started(self, setting: Setting) -> Iterator[int]:
        args = self.args
        if setting.side == OWN:
            with own_server(
                args.target, args.drafter, self.threads, self.context, self.parallel, args.timeout
            ) as port:
                yield port
            return
        assert self.server
        drafter = args.drafter if setting.depth else None
        with self.server.start(
            args.target, self.threads, self.context, drafter, setting.depth, self.parallel
        ) as side:
            yield side.port

    def _round(self, setting: Setting, n: int) -> None:
        with self._started(setting) as port:
            for clients in (1, self.parallel):  # warm-up, not counted
                self._crowd(port, setting, clients, WARM_UP, seed=-1 - n)
            for clients in self.args.clients:
                begin = time.perf_counter()
                answers = self._crowd(port, setting, clients, self.args.tokens, n)
                seconds = time.perf_counter() - begin
                tokens = sum(a["usage"]["completion_tokens"] for a in answers)
                wanted = clients * self.args.requests * self.args.tokens
                if tokens != wanted:
                    raise PeerError(f"{setting.name} gave {tokens} tokens where {wanted} were due")
                key = (setting.name, clients)
                self.samples.setdefault(key, []).append(tokens / seconds)
                counts = self.drafts.setdefault(key, [0, 0])
                for a in answers:
                    counts[0] += a.get("timings", {}).get("draft_n", 0)
                    counts[1] += a.get("timings", {}).get("draft_n_accepted", 0)

    def _crowd(
        self, port: int, setting: Setting, clients: int, tokens: int, seed: int
    ) -> list[dict[str, Any]]:
        """Returns the answers of this many clients, which begin together."""
        together = threading.Barrier(clients)

        def client(which: int) -> list[dict[str, Any]]:
            together.wait()
            return [
                ask(port, self._request(setting, tokens, (seed, clients, which, i)), timeout)
                for i in range(self.args.requests)
            ]

        timeout = self.args.timeout
        with ThreadPoolExecutor(clients) as threads:
            return [a for answers in threads.map(client, range(clients)) for a in answers]

    def _request(self, setting: Setting, tokens: int, seed: tuple[int, ...]) -> dict[str, Any]:
        """Returns arbitrary prompts, different each time, so that prompt caches do not help."""
        prompt = random.Random(repr(seed)).choices(range(256, self.vocab), k=self.args.prompt)
        return {
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
            **setting.request,
        }

    # ------------------------------------------------------------ figures

    def _report(self) -> dict[str, Any]:
        import gemtp_native

        figures = []
        for setting in self.settings:
            rates = {
                clients: statistics.median(self.samples[setting.name, clients])
                for clients in self.args.clients
                if self.samples.get((setting.name, clients))
            }
            least = min(rates, default=0)
            for clients, rate in rates.items():
                drafted, accepted = self.drafts[setting.name, clients]
                figures.append(
                    {
                        "side": setting.side,
                        "drafts": setting.drafts,
                        "clients": clients,
                        "tokens_per_second": rate,
                        "over_fewest_clients": rate / rates[least],
                        "accepted": accepted / drafted if drafted else None,
                        "runs": self.samples[setting.name, clients],
                    }
                )
        return {
            "machine": self.machine,
            "threads": self.threads,
            "context": self.context,
            "target": self.target,
            "drafter": self.drafter,
            OWN: {"version": gemtp_native.__version__, "isa": gemtp_native.system_info()["isa"]},
            PEER: None if self.server is None else {"version": self.server.version},
            "rounds": self.args.runs,
            "tokens": self.args.tokens,
            "prompt": self.args.prompt,
            "figures": figures,
            "ratios": self._ratios(figures),
            "failed": self.failed,
            "load_average": self.load_average,
        }

    def _ratios(self, figures: list[dict[str, Any]]) -> dict[str, float]:
        """Returns gemtp's best figure over llama.cpp's best by number of clients."""
        out = {}
        for clients in self.args.clients:
            best = {
                side: max(
                    (
                        f["tokens_per_second"]
                        for f in figures
                        if (f["side"], f["clients"]) == (side, clients)
                    ),
                    default=None,
                )
                for side in (OWN, PEER)
            }
            if best[OWN] and best[PEER]:
                out[str(clients)] = best[OWN] / best[PEER]
        return out


def text(report: dict[str, Any]) -> str:
    from gemtp_native.measure.text import percent, size_text, table

    counts = sorted({f["clients"] for f in report["figures"]})
    names = list(dict.fromkeys((f["side"], f["drafts"]) for f in report["figures"]))
    width = max(len(f"{side}, {drafts}") for side, drafts in names)
    rows: list[tuple[str, ...]] = [
        ("tokens/s".ljust(width), *(f"{n} client{'s' if n > 1 else ''}" for n in counts))
    ]
    for side, drafts in names:
        cells = []
        for f in report["figures"]:
            if (f["side"], f["drafts"]) == (side, drafts):
                share = "" if f["accepted"] is None else f", {percent(f['accepted'], 1)}"
                rate = f["tokens_per_second"]
                cells.append(f"{rate:.2f} (x{f['over_fewest_clients']:.2f}{share})")
        rows.append((f"{side}, {drafts}".ljust(width), *cells))
    if report["ratios"]:
        ratios = [f"{report['ratios'].get(str(n), float('nan')):.2f}" for n in counts]
        rows.append(("best over best".ljust(width), *ratios))
    machine, peer = report["machine"], report[PEER]
    files = [report["target"], report["drafter"]]
    lines = [
        f"machine    {machine['cpu']}, {report['threads']} threads, {machine['platform']}",
        f"{OWN:<10} {report[OWN]['version']}, {report[OWN]['isa']}",
        *([] if peer is None else [f"{PEER:<10} {peer['version']}"]),
        *(
            f"{role:<10} {os.path.basename(f['path'])}, {size_text(f['bytes'])}"
            for role, f in zip(("target", "drafter"), files, strict=True)
            if f
        ),
        "",
        table(rows),
        "",
        f"Median of {report['rounds']} interleaved rounds; {report['tokens']} tokens behind "
        f"{report['prompt']}, the prompt's time included. In brackets: over the fewest clients, "
        "and drafts accepted.",
        *(f"{name}: {why}" for name, why in report["failed"].items()),
    ]
    if report["load_average"] is not None and report["load_average"] > BUSY:
        lines.append(
            f"The machine was busy before this began (load average {report['load_average']:.1f}): "
            "these ratios mean little."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
