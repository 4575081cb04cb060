#!/usr/bin/env python3
"""Measures draft="auto" against every fixed depth on pairs of chosen acceptance.

    python tools/bench_depth.py TARGET.gguf DRAFTER.gguf [DRAFTER.gguf ...]

Every drafter is one workload: `gemtp synth` makes a target once and any number of drafters that are
right as often as one asks. On each, all depths generate the same text at the same time, a slice of
tokens each in turn, so that a slow moment of the machine meets all of them. See docs/mtp.md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gemtp_native as gemtp
from gemtp_native.model import TextStream
from gemtp_native.profile.machine import describe_machine

SLICE = 8  # tokens that a depth generates before the next one's turn: a fraction of a second
AUTO = "auto"


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    try:
        report = measure(args)
    except KeyboardInterrupt:
        return 130
    except (gemtp.Error, OSError) as e:
        print(f"bench_depth: error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report) if args.json else table(report))
    return 0 if report["identical"] else 1


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=Path, metavar="TARGET.gguf")
    parser.add_argument("drafters", type=Path, nargs="+", metavar="DRAFTER.gguf")
    parser.add_argument(
        "--depths",
        type=_depths,
        default=[1, 2, 3, 5, 7],
        metavar="N,N",
        help="fixed depths beside 0 and auto (default: 1,2,3,5,7)",
    )
    parser.add_argument("--tokens", type=int, default=512, metavar="N", help="(default: 512)")
    parser.add_argument("--context", type=int, default=8, metavar="N", help="prompt (default: 8)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="texts (default: 3)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="X")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: as many as pay)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    for name in ("tokens", "context", "runs"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}; it must be at least 1")
    return args


def _depths(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 15 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of depths; depths are 1 to 15")
    return sorted({int(part) for part in parts})


def measure(args: argparse.Namespace) -> dict[str, Any]:
    workloads = []
    for drafter in args.drafters:
        print(f"{drafter.name} …", file=sys.stderr, flush=True)
        model = gemtp.Model(
            args.target,
            drafter=drafter,
            threads=args.threads,
            context=args.context + args.tokens + 16,
        )
        runs = [_run(model, args, seed) for seed in range(args.runs)]
        workloads.append(_summary(drafter, runs))
        del model
    return {
        "machine": describe_machine(),
        "target": args.target.name,
        "context": args.context,
        "tokens": args.tokens,
        "runs": args.runs,
        "workloads": workloads,
        "identical": all(workload["identical"] for workload in workloads),
    }


def _run(model: gemtp.Model, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Returns the seconds that each depth took for one text, and the choices of auto."""
    noise = random.Random(seed)
    prompt = [noise.randrange(300, model.vocab_size) for _ in range(args.context)]
    streams: dict[int | str, TextStream] = {
        depth: model.stream(
            prompt,
            max_tokens=args.tokens,
            temperature=args.temperature,
            seed=seed,
            ignore_eos=True,
            draft=depth,  # type: ignore[arg-type]
        )
        for depth in (0, *args.depths, AUTO)
    }
    steps = {depth: stream.steps() for depth, stream in streams.items()}
    order = list(streams)
    for lap in range(-(-args.tokens // SLICE)):
        for depth in order if lap % 2 == 0 else reversed(order):
            _advance(steps[depth], streams[depth], (lap + 1) * SLICE)
    auto = streams[AUTO].stats
    return {
        "rates": {str(d): s.stats.tokens_per_second for d, s in streams.items()},
        "identical": len({tuple(s.tokens) for s in streams.values()}) == 1,
        "depths": auto.depth_histogram,
        "drafted": auto.drafted,
        "accepted": auto.accepted,
        "lookup_drafted": auto.lookup_drafted,
    }


def _advance(steps: Iterator[Any], stream: TextStream, tokens: int) -> None:
    while len(stream.tokens) < tokens and next(steps, None) is not None:
        pass


def _summary(drafter: Path, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    depths = list(runs[0]["rates"])
    rates = {d: statistics.median(run["rates"][d] for run in runs) for d in depths}
    best = max((d for d in depths if d != AUTO), key=lambda d: rates[d])

    def over(depth: str) -> float:
        return statistics.median(run["rates"][AUTO] / run["rates"][depth] for run in runs)

    histogram = [sum(column) for column in zip(*(_padded(r["depths"]) for r in runs), strict=True)]
    return {
        "drafter": drafter.name,
        "tokens_per_second": rates,
        "texts": [run["rates"] for run in runs],
        "best": best,
        "over_best": over(best),
        "over_plain": over("0"),
        "auto_depths": histogram,
        "auto_mean_depth": sum(k * n for k, n in enumerate(histogram)) / sum(histogram),
        "identical": all(run["identical"] for run in runs),
    }


def _padded(histogram: list[int]) -> list[int]:
    return histogram + [0] * (16 - len(histogram))


def table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['machine']['cpu']}, {report['machine']['usable_cores']} cores; "
        f"{report['target']}, {report['tokens']} tokens behind {report['context']}, "
        f"{report['runs']} texts",
        "",
    ]
    first = report["workloads"][0]
    width = max(len(workload["drafter"]) for workload in report["workloads"])
    head = [f"{d:>6}" for d in first["tokens_per_second"]]
    lines.append(f"{'drafter':<{width}} {' '.join(head)}   best  auto/best  auto/plain  mean depth")
    for w in report["workloads"]:
        rates = " ".join(f"{rate:6.1f}" for rate in w["tokens_per_second"].values())
        lines.append(
            f"{w['drafter']:<{width}} {rates} {w['best']:>6} {w['over_best']:10.3f} "
            f"{w['over_plain']:11.3f} {w['auto_mean_depth']:11.2f}"
        )
    lines.append("")
    lines.append(
        "tokens/s, medians; ratios are medians of the ratios of single texts. "
        + ("All texts are the same." if report["identical"] else "TEXTS DIFFER.")
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
