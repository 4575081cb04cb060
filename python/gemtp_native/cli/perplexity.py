"""`gemtp perplexity`: measures how well a model predicts a text."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..base.counted import counted
from ..base.json_text import json_text
from .options import add_engine_options, add_special_option, add_target, engine_options
from .progress import Bars

if TYPE_CHECKING:
    from ..measure.perplexity import Estimate

MODELS = ("target",)  # arguments that may name a model by where it comes from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Perplexity of a text file: the lower, the better the model predicts it. Chunks are those "
        "of llama.cpp's llama-perplexity, so the two figures can be compared."
    )
    add_target(parser)
    parser.add_argument("text", metavar="FILE.txt", help="text in UTF-8")
    parser.add_argument(
        "--context",
        type=int,
        default=512,
        metavar="N",
        help="tokens of a chunk, whose second half is scored (default: 512)",
    )
    add_special_option(parser, "text")
    parser.add_argument("--chunks", type=int, metavar="N", help="score the first N (default: all)")
    add_engine_options(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def run(args: argparse.Namespace) -> int:
    from ..measure import perplexity as evaluate

    text = evaluate.read_text(args.text)
    with Bars(args.quiet) as bars:

        def progress(estimate: Estimate, total: int) -> None:
            bars("chunks", estimate.chunks, total, f"PPL = {estimate.perplexity:.4f}")

        result = evaluate.perplexity(
            args.target,
            text,
            context=args.context,
            chunks=args.chunks,
            special=args.special,
            progress=progress,
            **engine_options(args),
        )
    if args.json:
        files = {"target": os.fspath(args.target), "text": os.fspath(args.text)}
        print(json_text({**files, **result.as_dict()}))
    else:
        print(
            f"PPL = {result.perplexity:.4f} +/- {result.uncertainty:.5f}   "
            f"({counted(result.tokens, 'token')} scored, "
            f"{counted(result.chunks, 'chunk')} of {result.context}, {result.seconds:.1f} s)"
        )
    return 0
