#!/usr/bin/env python3
"""Compares greedy texts of gemtp with those of llama.cpp's server: the same file, the same prompts.

    python tools/compare_texts.py TARGET.gguf [DRAFTER.gguf] --text FILE

Both round activations, in different places and orders, so their logits differ a little everywhere,
and where two tokens are close a greedy text takes another turn. For each prompt: are the texts
equal, and if not, by how much does gemtp prefer its own token to the other one where they part?
That is a near-tie if it is within four times what a difference of two log-probabilities is off by:
the root of 2 times the RMS of what those of the tokens before differ by.
With a drafter, gemtp's text is also checked against its own without one.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gemtp_native as gemtp
from measure_mtp import cut
from peers import LlamaServer, LlamaSide, PeerError

NEAR = 4 * math.sqrt(2)  # times the RMS of the differences: limit of a near-tie


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    try:
        report = compare(args)
    except KeyboardInterrupt:
        return 130
    except (PeerError, gemtp.Error, OSError, UnicodeDecodeError) as e:
        print(f"compare_texts: error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report) if args.json else table(report))
    return 0 if report["drafting_changed"] == 0 else 1


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=Path, metavar="TARGET.gguf")
    parser.add_argument("drafter", type=Path, metavar="DRAFTER.gguf", nargs="?")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="prompts' source")
    parser.add_argument("--prompts", type=int, default=20, metavar="N", help="(default: 20)")
    parser.add_argument("--prompt-tokens", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--llama-server", metavar="PATH", help="(default: the one on PATH)")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: all)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    for name in ("prompts", "prompt_tokens", "tokens"):
        if getattr(args, name) < 2:
            option = name.replace("_", "-")
            parser.error(f"--{option} is {getattr(args, name)}; it must be at least 2")
    return args


def compare(args: argparse.Namespace) -> dict[str, Any]:
    program = args.llama_server or shutil.which("llama-server")
    if program is None:
        raise PeerError("llama-server is not on PATH; install llama.cpp or pass --llama-server")
    server = LlamaServer(program)
    context = args.prompt_tokens + args.tokens + 16
    model = gemtp.Model(args.target, drafter=args.drafter, threads=args.threads, context=context)
    prompts = cut(model, args.text.read_text("utf-8"), args.prompts, args.prompt_tokens)
    own, changed = [], 0
    for prompt in prompts:
        options = {"max_tokens": args.tokens, "ignore_eos": True}
        own.append(model.generate(prompt, draft="auto", **options).tokens)
        changed += model.generate(prompt, draft=0, **options).tokens != own[-1]
    with server.start(args.target, model.threads, context + 64) as side:
        answers = [_ask(side, prompt, args.tokens) for prompt in prompts]
    rows, differences = [], []
    for prompt, tokens, (other, log_probs) in zip(prompts, own, answers, strict=True):
        row, seen = _compare(model, prompt, tokens, other, log_probs)
        rows.append(row)
        differences += seen
    rms = math.sqrt(statistics.fmean(d * d for d in differences))
    for row in rows:
        if not row["equal"]:
            row["near_tie"] = row["margin"] <= NEAR * rms
    return {
        "target": str(args.target),
        "peer": server.version,
        "prompts": rows,
        "equal": sum(row["equal"] for row in rows),
        "near_ties": sum(row.get("near_tie", False) for row in rows),
        "rms_difference": rms,
        "compared_tokens": len(differences),
        "drafting_changed": changed,
    }


def _ask(side: LlamaSide, prompt: Sequence[int], tokens: int) -> tuple[list[int], list[float]]:
    completion = side.complete(prompt, tokens, log_probs=True)
    return completion.tokens, completion.log_probs


def _compare(
    model: gemtp.Model,
    prompt: list[int],
    own: list[int],
    other: list[int],
    log_probs: list[float],
) -> tuple[dict[str, Any], list[float]]:
    """Returns a row of the report, and the differences of log-probabilities of tokens that both
    chose."""
    same = next((i for i, (a, b) in enumerate(zip(own, other, strict=True)) if a != b), len(own))
    logits = model.logits([*prompt, *own[:same]])[len(prompt) - 1 :].astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    scores = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    seen = [float(scores[i, own[i]]) - log_probs[i] for i in range(same)]
    row: dict[str, Any] = {"equal": same == len(own), "same_tokens": same}
    if same < len(own):
        row["own"], row["other"] = (model.detokenize([t[same]]) for t in (own, other))
        row["margin"] = float(scores[same, own[same]] - scores[same, other[same]])
    return row, seen


def table(report: dict[str, Any]) -> str:
    rows = report["prompts"]
    lines = [
        f"{report['target']}; llama.cpp: {report['peer']}",
        f"{report['equal']} of {len(rows)} texts equal, {report['near_ties']} part at a near-tie; "
        f"log-probabilities of {report['compared_tokens']} tokens differ by "
        f"{report['rms_difference']:.4f} (RMS)",
    ]
    for number, row in enumerate(rows, 1):
        if not row["equal"]:
            tie = "near-tie" if row["near_tie"] else "NOT a near-tie"
            lines.append(
                f"  prompt {number}: {row['same_tokens']} tokens equal, then {row['own']!r} here "
                f"and {row['other']!r} there, {row['margin']:.4f} apart: {tie}"
            )
    if report["drafting_changed"]:
        lines.append(f"drafting changed {report['drafting_changed']} texts")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
