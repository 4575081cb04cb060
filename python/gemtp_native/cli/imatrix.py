"""`gemtp imatrix`: measures where the precision of a model's weights matters."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ..base.counted import counted
from ..base.json_text import json_text
from .options import add_machine_options, add_special_option, add_target, machine_options
from .progress import Bars

MODELS = ("target",)  # arguments that may name a model by where it comes from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs a text through a target and writes how large the inputs of every matrix are, column "
        "by column: what gemtp quantize --imatrix and llama.cpp's llama-quantize --imatrix read. "
        "Give the model in its best precision and a text like those it will be used for."
    )
    add_target(parser)
    parser.add_argument("text", nargs="+", metavar="TEXT.txt", help="text in UTF-8")
    parser.add_argument("-o", "--out", required=True, metavar="OUT.gguf", help="file to write")
    parser.add_argument(
        "--context", type=int, default=512, metavar="N", help="tokens of a chunk (default: 512)"
    )
    add_special_option(parser, "text")
    parser.add_argument("--chunks", type=int, metavar="N", help="use the first N (default: all)")
    add_machine_options(parser)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress, no report")


def run(args: argparse.Namespace) -> int:
    from ..measure.imatrix import collect

    with Bars(args.quiet) as bars:
        result = collect(
            args.target,
            args.text,
            args.out,
            context=args.context,
            chunks=args.chunks,
            special=args.special,
            progress=lambda done, total: bars("chunks", done, total),
            **machine_options(args),
        )
    if args.json:
        print(json_text(asdict(result)))
    elif not args.quiet:
        if result.partial:
            print(
                f"note: {result.partial} of them hold experts that no token met; a longer text "
                f"would reach more"
            )
        print(
            f"{result.path}: {result.entries} matrices, {counted(result.tokens, 'token')} in "
            f"{counted(result.chunks, 'chunk')} of {result.chunk_size}, {result.bytes:,} bytes, "
            f"{result.seconds:.1f} s"
        )
    return 0
