"""`gemtp synth`: makes a pair with the shapes of a released one, for measuring speed."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..base.counted import counted
from ..base.json_text import json_text
from ..make.synth import EVERY, SHAPES, TYPES, SynthResult, write_drafter, write_pair
from ..measure.text import size_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes target.gguf and drafter.gguf with the exact shapes of a released pair and a chosen "
        "acceptance. They cost what the real ones cost and know one thing: which token follows "
        "which, in one long cycle."
    )
    parser.add_argument("shape", metavar="SHAPE", choices=SHAPES, help=", ".join(SHAPES))
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--out", metavar="DIR", type=Path, help="folder to write to (default: synth-SHAPE)"
    )
    place.add_argument(
        "--drafter-only",
        metavar="FILE.gguf",
        type=Path,
        help="write another drafter of a target that the same options made, and no target",
    )
    parser.add_argument(
        "--accept",
        type=_shares,
        default=0.75,
        metavar="P[,P...]",
        help="how often the drafter's next token is right, 0 to 1 (default: %(default)s); several "
        "take turns",
    )
    parser.add_argument(
        "--every",
        type=int,
        metavar="N",
        help=f"tokens until the next of several --accept has its turn (default: {EVERY})",
    )
    parser.add_argument(
        "--type", choices=TYPES, default="q4_0", help="of the matrices (default: %(default)s)"
    )
    parser.add_argument("--drafter-type", choices=TYPES, help="of the drafter's (default: --type)")
    parser.add_argument("--layers", type=int, metavar="N", help="of the target, fewer than it has")
    vocabulary = parser.add_mutually_exclusive_group()
    vocabulary.add_argument(
        "--vocab", metavar="FILE.gguf", type=Path, help="take the tokenizer from this file"
    )
    vocabulary.add_argument(
        "--vocab-size", type=int, metavar="N", help="tokens to make up (default: 262144)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress, no report")


def run(args: argparse.Namespace) -> int:
    options: dict[str, Any] = {
        "accept": args.accept,
        "every": args.every,
        "outtype": args.type,
        "drafter_type": args.drafter_type,
        "layers": args.layers,
        "vocab": args.vocab,
        "vocab_size": args.vocab_size,
        "seed": args.seed,
        "force": args.force,
        "progress": not args.quiet,
    }
    if args.drafter_only is not None:
        result = write_drafter(args.shape, args.drafter_only, **options)
    else:
        result = write_pair(args.shape, args.out or Path(f"synth-{args.shape}"), **options)
    if args.json:
        print(json_text(asdict(result)))
    elif not args.quiet:
        print(_summary(result))
    return 0


def _shares(text: str) -> float | tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number nor several with commas between them"
        ) from None
    return shares[0] if len(shares) == 1 else shares


def _summary(r: SynthResult) -> str:
    target = (
        f"{r.target}: {counted(r.layers, 'layer')}, {r.type}, {r.parameters:,} parameters, "
        f"{size_text(r.target_bytes)}, reads {size_text(r.token_bytes)} a token\n"
    )
    shares = r.accept if isinstance(r.accept, tuple) else (r.accept,)
    right = ", ".join(f"{100 * share:g}%" for share in shares)
    turns = f", in turns of {r.every:,} tokens" if r.every else ""
    return (
        f"{'' if r.target is None else target}"
        f"{r.drafter}: {r.drafter_type}, {r.drafter_parameters:,} parameters, "
        f"{size_text(r.drafter_bytes)}, reads {size_text(r.draft_bytes)} a step; "
        f"right {right} of the time{turns}\n"
        f"{r.vocab_size:,} tokens ({r.vocabulary}), {r.seconds:.1f} s"
    )
