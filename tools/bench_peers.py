#!/usr/bin/env python3
"""Runs the same GGUF pair through llama.cpp's server and through gemtp, in turns.

In every round each side loads the files, answers the same token ids with the same number of
threads, and ends: both never share memory. Figures are medians over the rounds; ratios are gemtp's
figure over llama.cpp's. See docs/bench.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import statistics
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers import Completion, LlamaServer, PeerError, start_own

PEER, OWN = "llama.cpp", "gemtp"
PROMPT_TOKENS = 512  # of the prefill
CONTEXT_ANSWER = 32  # tokens decoded after a long prompt
TEXT = "The history of the printing press begins with"
BUSY = 0.5  # load average of others above which threads wait for each other
LOWER_IS_BETTER = ("s", "GB")


def main(argv: list[str] | None = None) -> int:
    # A terminated tool must still end the processes it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = _parse(argv)
    try:
        report = Comparison(args).run()
    except KeyboardInterrupt:
        return 130
    except (PeerError, _gemtp().Error, OSError) as e:
        print(f"bench_peers: error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report, ensure_ascii=False) if args.json else text(report))
    return 0


def _gemtp() -> Any:
    import gemtp_native

    return gemtp_native


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=Path, metavar="TARGET.gguf")
    parser.add_argument("drafter", type=Path, metavar="DRAFTER.gguf", nargs="?")
    parser.add_argument("--llama-server", metavar="PATH", help="(default: the one on PATH)")
    parser.add_argument(
        "--server-args", type=shlex.split, default=[], metavar="ARGS", help="more for llama-server"
    )
    parser.add_argument("--threads", type=number(1, 1024), metavar="N", help="(default: all)")
    parser.add_argument("--runs", type=number(1, 100), default=3, metavar="N", help="(default: 3)")
    parser.add_argument(
        "--tokens", type=number(2, 65536), default=96, metavar="N", help="(default: 96)"
    )
    parser.add_argument(
        "--depths",
        type=numbers(1, 15),
        default=[1, 2, 3, 5, 7],
        metavar="N,N",
        help="drafts a round (default: 1,2,3,5,7)",
    )
    parser.add_argument(
        "--contexts",
        type=numbers(1, 1 << 20),
        default=[],
        metavar="N,N",
        help="also decode behind prompts of these lengths, such as 4096,16384: slow",
    )
    parser.add_argument("--text", default=TEXT, help="prompt of the generations")
    parser.add_argument(
        "--timeout", type=number(1, 86400), default=600, metavar="SECONDS", help="(default: 600)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    return parser.parse_args(argv)


def number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")

    return parse


def numbers(low: int, high: int) -> Callable[[str], list[int]]:
    one = number(low, high)
    return lambda text: sorted({one(part) for part in text.split(",")})


def _check_memory(target: Path, drafter: Path | None) -> None:
    """Checks that the models fit into memory, because a peer might otherwise swap for hours."""
    needed = _gemtp().memory_estimate(target, drafter)["needed"]
    available = _gemtp()._core.available_memory()
    if available and needed > available:
        raise PeerError(
            f"{target}: the model needs {needed / 1e9:.2f} GB of memory and there are "
            f"{available / 1e9:.2f} GB; use a smaller model or a smaller type"
        )


class Comparison:
    def __init__(self, args: argparse.Namespace):
        from gemtp_native import _core
        from gemtp_native.profile.machine import describe_file, describe_machine

        self.args = args
        self.target = describe_file(args.target)
        self.drafter = None if args.drafter is None else describe_file(args.drafter)
        _check_memory(args.target, args.drafter)
        self.machine = describe_machine()
        self.threads = args.threads or _core.available_cores()
        program = args.llama_server or shutil.which("llama-server")
        if program is None:
            raise PeerError("llama-server is not on PATH; install llama.cpp or pass --llama-server")
        self.server = LlamaServer(program, args.server_args, args.timeout)
        self.prompt = self._text_ids()
        self.vocab = self._vocabulary()
        self.context = self._context()
        # (figure, unit) -> side -> one value per round
        self.samples: dict[tuple[str, str], dict[str, list[float]]] = {}
        self.drafts: dict[str, dict[str, list[int]]] = {OWN: {}, PEER: {}}
        self.answers: dict[str, list[int]] = {}
        self.failed: dict[str, str] = {}
        self.load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None

    def _text_ids(self) -> list[int]:
        gemtp = _gemtp()
        ids: list[int] = gemtp.Tokenizer(self.args.target).encode(os.fsencode(self.args.text), True)
        return ids

    def _vocabulary(self) -> int:
        size: int = _gemtp().Tokenizer(self.args.target).vocab_size
        return size

    def _context(self) -> int:
        needed = [PROMPT_TOKENS + 1, len(self.prompt) + self.args.tokens + 16]
        needed += [n + CONTEXT_ANSWER for n in self.args.contexts]
        limit = self.target["context_length"]
        if limit and max(needed) > limit:
            raise PeerError(
                f"this needs a context of {max(needed)} tokens and the model was made for {limit}; "
                "ask for less"
            )
        # llama.cpp rounds up to multiples of 256; gemtp gets the same context.
        return min(limit or sys.maxsize, (max(needed) + 255) // 256 * 256)

    # ------------------------------------------------------------ rounds

    def run(self) -> dict[str, Any]:
        steps: list[tuple[str, Callable[[int], None]]] = [
            (f"{PEER}, plain", self._peer_plain),
            (f"{OWN}, plain", self._own_plain),
        ]
        if self.args.drafter is not None:
            steps.append((f"{OWN}, with drafter", self._own_drafts))
            if not self.server.has_mtp:
                self.failed[f"{PEER}, with drafter"] = "this llama-server knows no MTP drafter"
            else:
                for depth in self.args.depths:
                    steps.append((f"{PEER}, {depth} drafts", self._peer_drafts(depth)))
        self._read_files()
        for n in range(self.args.runs):
            for name, step in reversed(steps) if n % 2 else steps:
                if name in self.failed:
                    continue
                self._say(f"round {n + 1} of {self.args.runs}: {name}")
                try:
                    step(n)
                except PeerError as e:
                    if step in (self._peer_plain, self._own_plain, self._own_drafts):
                        raise
                    self.failed[name] = str(e)  # the others can still be compared
        return self._report()

    def _read_files(self) -> None:
        """Reads files into the page cache, so that no side pays for the storage."""
        for path in filter(None, (self.args.target, self.args.drafter)):
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass

    def _say(self, line: str) -> None:
        if not self.args.quiet:
            print(f"bench_peers: {line}", file=sys.stderr, flush=True)

    def _add(self, figure: str, unit: str, side: str, value: float) -> None:
        by_side = self.samples.setdefault((figure, unit), defaultdict(list))
        by_side[side].append(value)

    def _peer_plain(self, n: int) -> None:
        with self.server.start(self.args.target, self.threads, self.context) as side:
            self._plain(PEER, side, n)

    def _own_plain(self, n: int) -> None:
        with start_own(
            self.args.target, self.threads, self.context, timeout=self.args.timeout
        ) as side:
            self._plain(OWN, side, n)

    def _plain(self, name: str, side: Any, n: int) -> None:
        from gemtp_native.profile.machine import peak_bytes

        self._add("ready to generate", "s", name, side.ready_seconds)
        self._warm_up(side)
        out = side.complete(self.prompt, self.args.tokens)
        self._add("plain decoding", "tokens/s", name, out.rate)
        self.answers[name] = out.tokens
        if (peak := peak_bytes(side.pid)) is not None:  # measured before long prompts
            self._add("peak resident memory", "GB", name, peak / 1e9)
        out = side.complete(self._ids(PROMPT_TOKENS, n), 1)
        self._add(f"prefill of {PROMPT_TOKENS}", "tokens/s", name, out.prompt_rate)
        for length in self.args.contexts:
            out = side.complete(self._ids(length, n), CONTEXT_ANSWER)
            self._add(f"prefill of {length}", "tokens/s", name, out.prompt_rate)
            self._add(f"plain decoding behind {length}", "tokens/s", name, out.rate)

    def _peer_drafts(self, depth: int) -> Callable[[int], None]:
        def step(_: int) -> None:
            with self.server.start(
                self.args.target, self.threads, self.context, self.args.drafter, depth
            ) as side:
                self._warm_up(side)
                self._drafts(PEER, str(depth), side.complete(self.prompt, self.args.tokens))

        return step

    def _own_drafts(self, _: int) -> None:
        with start_own(
            self.args.target, self.threads, self.context, self.args.drafter, self.args.timeout
        ) as side:
            self._warm_up(side, "auto")
            for depth in (*self.args.depths, "auto"):
                out = side.complete(self.prompt, self.args.tokens, depth)
                self._drafts(OWN, str(depth), out)

    def _drafts(self, name: str, depth: str, out: Completion) -> None:
        self._add(f"{depth} drafts", "tokens/s", name, out.rate)
        self.drafts[name][depth] = [out.drafted, out.accepted]

    def _warm_up(self, side: Any, depth: Any = None) -> None:
        side.complete(self._ids(8, -1), 8, depth)

    def _ids(self, n: int, seed: int) -> list[int]:
        """Returns arbitrary tokens, different in every round, so that prompt caches do not help."""
        return random.Random(1000 * n + seed).choices(range(self.vocab), k=n)

    # ------------------------------------------------------------ figures

    def _report(self) -> dict[str, Any]:
        figures = [
            self._figure(name, unit, by_side) for (name, unit), by_side in self.samples.items()
        ]
        figures.sort(key=lambda f: "drafts" in f["figure"])
        figures += self._best(figures)
        own, peer = self.answers[OWN], self.answers[PEER]
        same = next((i for i, (a, b) in enumerate(zip(own, peer)) if a != b), len(own))  # noqa: B905
        return {
            "machine": self.machine,
            "threads": self.threads,
            "context": self.context,
            "target": self.target,
            "drafter": self.drafter,
            PEER: {"program": self.server.program, "version": self.server.version},
            OWN: {"version": _gemtp().__version__, "isa": _gemtp().system_info()["isa"]},
            "rounds": self.args.runs,
            "tokens": self.args.tokens,
            "same_tokens": same,
            "figures": figures,
            "failed": self.failed,
            "load_average": self.load_average,
        }

    def _figure(self, name: str, unit: str, by_side: dict[str, list[float]]) -> dict[str, Any]:
        medians = {side: statistics.median(values) for side, values in by_side.items()}
        depth = name.split()[0]
        return {
            "figure": name,
            "unit": unit,
            "better": "lower" if unit in LOWER_IS_BETTER else "higher",
            PEER: medians.get(PEER),
            OWN: medians.get(OWN),
            "ratio": _ratio(medians.get(OWN), medians.get(PEER)),
            "runs": dict(by_side),
            "accepted": {
                side: (accepted[1] / accepted[0] if accepted[0] else 0.0)
                for side in (PEER, OWN)
                if name.endswith(" drafts") and (accepted := self.drafts[side].get(depth))
            },
        }

    def _best(self, figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Compares both sides at their best fixed depths, and each with its own plain decoding."""
        plain = next(f for f in figures if f["figure"] == "plain decoding")
        best: dict[str, tuple[float, str]] = {}
        for side in (PEER, OWN):
            fixed = [
                (f[side], f["figure"].split()[0])
                for f in figures
                if f["figure"].endswith(" drafts")
                and f[side]
                and not f["figure"].startswith("auto")
            ]
            if fixed:
                best[side] = max(fixed)
        if not best:
            return []
        rates = {side: rate for side, (rate, _) in best.items()}
        gains = {side: rate / plain[side] for side, rate in rates.items()}
        return [
            {
                "figure": name,
                "unit": unit,
                "better": "higher",
                PEER: values.get(PEER),
                OWN: values.get(OWN),
                "ratio": _ratio(values.get(OWN), values.get(PEER)),
                "depth": {side: int(depth) for side, (_, depth) in best.items()},
            }
            for name, unit, values in (
                ("best fixed depth", "tokens/s", rates),
                ("best fixed depth over own plain", "times", gains),
            )
        ]


def _ratio(own: float | None, peer: float | None) -> float | None:
    return own / peer if own is not None and peer else None


# ---------------------------------------------------------------- text


def text(report: dict[str, Any]) -> str:
    """Returns a table, at most 100 columns wide."""
    from gemtp_native.measure.text import percent, size_text, table

    def cell(figure: dict[str, Any], side: str) -> str:
        value = figure[side]
        if value is None:
            return "-"
        shown = f"{value:.2f}" if value < 100 else f"{value:.1f}"
        if side in figure.get("accepted", {}):
            shown += f" ({percent(figure['accepted'][side], 1)})"
        if "depth" in figure and side in figure["depth"]:
            shown += f" (at {figure['depth'][side]})"
        return shown

    width = max(len(f["figure"]) for f in report["figures"])
    rows: list[tuple[str, ...]] = [(" " * width, "unit", PEER, OWN, "ratio")]
    for f in report["figures"]:
        ratio = "-" if f["ratio"] is None else f"{f['ratio']:.2f}"
        name = f["figure"].ljust(width)
        rows.append((name, f["unit"], cell(f, PEER), cell(f, OWN), ratio))
    machine, rounds = report["machine"], report["rounds"]
    lines = [
        f"machine    {machine['cpu']}, {report['threads']} threads, {machine['platform']}",
        f"{PEER:<10} {report[PEER]['version']}",
        f"{OWN:<10} {report[OWN]['version']}, {report[OWN]['isa']}",
        *(
            f"{role:<10} {os.path.basename(file['path'])}, {size_text(file['bytes'])}"
            for role in ("target", "drafter")
            if (file := report[role])
        ),
        "",
        table(rows),
        "",
        f"Median of {rounds} interleaved round{'s' if rounds != 1 else ''}. In brackets: drafts "
        "accepted. Of s and GB, less is better.",
        f"Of {report['tokens']} tokens of plain decoding the first {report['same_tokens']} are the "
        "same on both sides.",
        *(f"{name}: {why}" for name, why in report["failed"].items()),
    ]
    if report["load_average"] is not None and report["load_average"] > BUSY:
        lines.append(
            f"The machine was busy before this began (load average {report['load_average']:.1f}): "
            "these ratios mean little."
        )
    return "\n".join(
        part for line in "\n".join(lines).splitlines() for part in textwrap.wrap(line, 100) or [""]
    )


if __name__ == "__main__":
    sys.exit(main())
