"""`gemtp tune`: measures what draft="auto" needs to know about this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..base.json_text import json_text
from ..errors import FileError
from .options import (
    add_engine_options,
    add_report_options,
    add_target,
    check_outputs,
    engine_options,
)

MODELS = ("target", "drafter")  # arguments that may name a model by where it comes from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measures target passes over 1 to 16 rows, draft steps and the memory bandwidth, prints "
        "how many tokens to draft if a given share of them is right, and saves the costs. From "
        "then on draft=auto starts from them, for these files and this number of threads. Without "
        "them it finds the costs out in the first rounds of a text."
    )
    add_target(parser)
    parser.add_argument("--drafter", metavar="DRAFTER.gguf", help="the model's drafter")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="measure behind N tokens, besides the first few; 0: nowhere else "
        "(default: 4096, or what the model can hold)",
    )
    how.add_argument(
        "--budget",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="begin no further round of measurements after this long (default: 20)",
    )
    add_engine_options(how)
    output = add_report_options(parser)
    output.add_argument("--no-save", action="store_true", help="save no profile")


def run(args: argparse.Namespace) -> int:
    from .. import profile
    from ..measure import bench, tune

    settings = tune.TuneSettings(args.context, args.budget, **engine_options(args))
    check_outputs(args.plot, sources=(args.target, args.drafter))
    if args.plot:
        bench.check_plot(args.plot)
    if not args.no_save:
        profile.check_folder()
    with _progress(args.quiet) as progress:
        report = tune.run(args.target, args.drafter, settings, progress)
    unsaved = None
    if not args.no_save:
        try:
            tune.save(report)
        except FileError as e:
            unsaved = e  # reported after the figures, which are still useful
    if args.json:
        print(json_text(report.as_dict()))
    else:
        print(tune.text(report))
    if args.plot:
        tune.plot(report, args.plot)
    if unsaved:
        raise unsaved
    return 0


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    if quiet or not sys.stderr.isatty():
        yield lambda share, what: None
        return
    from tqdm import tqdm

    with tqdm(
        desc="gemtp tune",
        total=100,
        bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}",
        file=sys.stderr,
        leave=False,
    ) as bar:

        def progress(share: float, what: str) -> None:
            if (line := f"gemtp tune: {what}") != bar.desc:
                bar.set_description_str(line)
            bar.update(100 * share - bar.n)

        yield progress
