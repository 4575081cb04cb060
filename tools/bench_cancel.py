#!/usr/bin/env python3
"""Measures how soon a generation ends that is cancelled: from cancel() to the return of the call.

    python tools/bench_cancel.py TARGET.gguf DRAFTER.gguf

Cancelled at random moments, half of the trials in the middle of a prompt, half while tokens come.
The thread that generates computes all the time, so what is measured includes how long the one that
cancels waits for it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import threading
import time
from typing import Any

import gemtp_native as gemtp
from gemtp_native.profile.machine import describe_machine

PHASES = ("prefill", "decoding")
LEAST = 0.05  # share of an undisturbed run: earlier, the work may not have begun
MOST = 0.9


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    try:
        report = measure(args)
    except KeyboardInterrupt:
        return 130
    except (gemtp.Error, OSError) as e:
        print(f"bench_cancel: error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report) if args.json else as_text(report))
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target, drafter = gemtp.demo_models()
    parser.add_argument("target", nargs="?", default=target, metavar="TARGET.gguf")
    parser.add_argument("drafter", nargs="?", default=drafter, metavar="DRAFTER.gguf")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: all)")
    parser.add_argument("--trials", type=int, default=40, metavar="N", help="a phase (default: 40)")
    parser.add_argument(
        "--prompt", type=int, default=1500, metavar="TOKENS", help="(default: 1500)"
    )
    parser.add_argument("--tokens", type=int, default=100, metavar="N", help="(default: 100)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of moments and prompts")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args(argv)
    if min(args.trials, args.prompt, args.tokens) < 1:
        parser.error("--trials, --prompt and --tokens must be at least 1")
    return args


def measure(args: argparse.Namespace) -> dict[str, Any]:
    context = args.prompt + args.tokens
    model = gemtp.Model(args.target, drafter=args.drafter, threads=args.threads, context=context)
    rng = random.Random(args.seed)

    def stream(prompt_tokens: int) -> gemtp.TextStream:
        model.clear_cache()
        prompt = [rng.randrange(300, model.vocab_size) for _ in range(prompt_tokens)]
        return model.stream(prompt, max_tokens=args.tokens, ignore_eos=True)

    whole = stream(args.prompt)
    for _ in whole.steps():
        pass
    usual = {"prefill": whole.stats.prompt_seconds, "decoding": whole.stats.decode_seconds}
    seconds: dict[str, list[float]] = {}
    for phase in PHASES:
        seconds[phase] = []
        while len(seconds[phase]) < args.trials:
            work = stream(args.prompt if phase == "prefill" else 1)
            if phase == "decoding":
                while not work.next_step():
                    pass
            taken = cancelled(work, rng.uniform(LEAST, MOST) * usual[phase])
            if taken is not None:
                seconds[phase].append(taken)
    return {
        "machine": describe_machine(),
        "isa": model.isa,
        "threads": model.threads,
        "trials": args.trials,
        "prompt_tokens": args.prompt,
        "seconds": {
            phase: {
                "median": statistics.median(s),
                "p95": sorted(s)[int(0.95 * (len(s) - 1))],
                "most": max(s),
            }
            for phase, s in seconds.items()
        },
    }


def cancelled(work: gemtp.TextStream, after: float) -> float | None:
    """Returns seconds from cancel() until the generating thread has returned; None: it had ended
    before."""
    returned: list[float] = []

    def generate() -> None:
        try:
            for _ in work.steps():
                pass
        except gemtp.CancelledError:
            returned.append(time.perf_counter())

    thread = threading.Thread(target=generate)
    thread.start()
    time.sleep(after)
    called = time.perf_counter()
    work.cancel()
    thread.join()
    return returned[0] - called if returned else None


def as_text(r: dict[str, Any]) -> str:
    lines = [
        f"{r['machine']['cpu']}, {r['isa']}, {r['threads']} threads; {r['trials']} trials a phase, "
        f"prompts of {r['prompt_tokens']} tokens",
        "",
        "cancelled in      median       95%      most",
    ]
    for phase, s in r["seconds"].items():
        figures = "".join(f"{1e3 * s[k]:7.1f} ms" for k in ("median", "p95", "most"))
        lines.append(f"{phase:14}{figures}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
