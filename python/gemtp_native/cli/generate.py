"""`gemtp generate`: complete a prompt."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.input_file import MOST_PROMPT, read_input, read_standard_input
from ..base.json_text import json_text
from ..options import NONE, OPTIONS
from . import INTERRUPTED
from .notes import after_the_text
from .options import (
    add_model_options,
    add_number_option,
    add_pair_options,
    add_sampling_options,
    add_special_option,
    add_structure_options,
    add_target,
    open_model,
    sampling_options,
    structure_options,
)
from .text import acceptance_table, depth_lines, statistics

if TYPE_CHECKING:
    from ..model import Model, TextStream

MODELS = ("target", "drafter")  # arguments that may name a model by where it comes from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="text; without it, or with -, standard input is read",
    )
    parser.add_argument("--file", type=Path, help="read the prompt from a file or pipe")
    add_pair_options(parser)
    max_tokens = OPTIONS["max_tokens"]
    add_number_option(parser, max_tokens, default=max_tokens.default)
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before TEXT; may repeat"
    )
    parser.add_argument("--ignore-eos", action="store_true", help="go on after an end token")
    add_special_option(parser, "prompt")
    add_sampling_options(parser)
    add_structure_options(parser)
    add_model_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--stats", action="store_true", help="statistics on standard error")
    output.add_argument(
        "--json", action="store_true", help="print text, tokens and statistics as JSON, at the end"
    )
    output.add_argument("--quiet", action="store_true", help="no notes on standard error")
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    prompt = _prompt(args)
    structure = structure_options(args)
    model = open_model(args)
    stream = model.stream(
        prompt,
        special=args.special,
        max_tokens=args.max_tokens,
        stop=[os.fsencode(s) for s in args.stop],
        draft=args.draft,
        ignore_eos=args.ignore_eos,
        **sampling_options(args),
        **structure,
    )
    interrupted = False
    pieces: list[str] = []
    with after_the_text():
        try:
            for piece in stream:
                pieces.append(piece)
                if not args.json:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            interrupted = True
        text = "".join(pieces)
        if args.json:
            print(json_text(_result(text, stream, interrupted)))
        elif not text.endswith("\n"):
            print()
        sys.stdout.flush()
    if args.stats or args.verbose:
        print(statistics(stream.stats), file=sys.stderr)
        if stream.stats.drafted:
            print(acceptance_table(stream.stats), file=sys.stderr)
    if args.verbose:
        print(depth_lines(stream.stats), file=sys.stderr)
    if not interrupted and not args.quiet:
        _note_end(args, model, stream)
    return INTERRUPTED if interrupted else 0


def _prompt(args: argparse.Namespace) -> bytes:
    if args.prompt is not None and args.file is not None:
        args.usage_error("give a prompt or --file FILE, not both")
    if args.file is not None:
        return read_input(args.file, MOST_PROMPT, pipe=True)
    if args.prompt == "-":
        return read_standard_input()
    if args.prompt is not None:
        return os.fsencode(args.prompt)
    data = b"" if sys.stdin is None or sys.stdin.isatty() else read_standard_input()
    if not data:
        args.usage_error("give a prompt, --file FILE, or something on standard input")
    return data


def _result(text: str, stream: TextStream, interrupted: bool) -> dict[str, Any]:
    return {
        "text": text,
        "tokens": stream.tokens,
        "finish_reason": "interrupted" if interrupted else stream.finish_reason,
        "stats": asdict(stream.stats),
    }


def _note_end(args: argparse.Namespace, model: Model, stream: TextStream) -> None:
    if stream.finish_reason == "context":
        print(
            f"gemtp: note: the context of {model.context} tokens is full; --context sets its size",
            file=sys.stderr,
        )
    if args.seed == NONE:
        print(f"gemtp: note: the seed was {stream.stats.seed}", file=sys.stderr)
