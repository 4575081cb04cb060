"""`gemtp sweep`: measures how quantizing a pair affects acceptance, speed and quality."""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileError
from ..options import MAX_DRAFT
from .options import add_engine_options, add_report_options, check_outputs, give_report
from .progress import Bars

if TYPE_CHECKING:
    from ..measure.sweep import Variant

_TYPES = "f16,q8_0,q4_0"

MODELS = (
    "target",
    "drafter",
    "targets",
    "drafters",
    "reference",
)  # arguments that may name a model by where it comes from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs every target with every drafter: acceptance of drafts by position, tokens per round, "
        "tokens per second; and of each target perplexity, and KL divergence from the reference. "
        "Either quantizes a pair of high precision into temporary files, or takes files as given. "
        "Exit code 1 if a target's text depends on its drafter."
    )
    parser.add_argument("target", nargs="?", metavar="TARGET.gguf", help="pair to quantize")
    parser.add_argument("drafter", nargs="?", metavar="DRAFTER.gguf")
    types = parser.add_argument_group("what to compare")
    types.add_argument("--target-types", type=_types, metavar="A,B", help=f"(default: {_TYPES})")
    types.add_argument("--drafter-types", type=_types, metavar="A,B", help=f"(default: {_TYPES})")
    types.add_argument(
        "--scratch", type=Path, metavar="DIR", help="for temporary files (default: the system's)"
    )
    types.add_argument(
        "--targets", nargs="+", metavar="FILE", help="targets as they are, instead of a pair"
    )
    types.add_argument("--drafters", nargs="+", metavar="FILE", help="drafters, likewise")
    types.add_argument(
        "--reference",
        metavar="FILE",
        help="target that others are compared with (default: TARGET, or the largest of --targets)",
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--text", metavar="FILE", help="to score and to cut prompts from (default: a built-in one)"
    )
    for name, default, line in (
        ("depth", 4, f"drafts a round, 1 to {MAX_DRAFT}"),
        ("prompts", 8, "cut from the text, evenly spaced"),
        ("prompt-tokens", 64, "of each"),
        ("tokens", 64, "to generate after each"),
        ("runs", 3, "interleaved rounds of all generations"),
        ("context", 256, "tokens of a chunk to score, as in gemtp perplexity"),
        ("chunks", 8, "to score, at most"),
    ):
        what.add_argument(
            f"--{name}",
            type=int,
            default=default,
            metavar="N",
            help=f"{line} (default: %(default)s)",
        )
    add_engine_options(what)
    add_report_options(parser, csv=True)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    _check_usage(args)
    from ..measure import perplexity as evaluate
    from ..measure import sweep
    from ..measure.sweep.render import csv_columns

    given = [
        args.target,
        args.drafter,
        args.reference,
        *(args.targets or ()),
        *(args.drafters or ()),
    ]
    check_outputs(args.csv, args.plot, sources=given)
    if args.plot:
        sweep.check_plot(args.plot)
    text = None if args.text is None else evaluate.read_text(args.text)
    settings = sweep.SweepSettings(
        **{name: getattr(args, name) for name in sweep.SweepSettings.__dataclass_fields__}
    )
    with ExitStack() as stack:
        targets, drafters, reference = _models(args, stack)
        bars = stack.enter_context(Bars(args.quiet))
        report = sweep.run(
            targets,
            drafters,
            text,
            settings,
            reference,
            text_name=os.path.basename(args.text or ""),
            progress=bars,
        )
    give_report(args, report, sweep, csv_columns(report))
    return 0 if report.identical else 1


def _check_usage(args: argparse.Namespace) -> None:
    if args.json and args.csv == "-":
        args.usage_error("--json and --csv - both print to standard output")
    if args.target is not None:
        if args.targets or args.drafters:
            args.usage_error("give a pair to quantize, or --targets and --drafters, not both")
        if args.drafter is None:
            args.usage_error("a pair to quantize is TARGET.gguf and DRAFTER.gguf")
    elif not args.targets or not args.drafters:
        args.usage_error("give TARGET.gguf and DRAFTER.gguf, or --targets and --drafters")
    elif args.target_types or args.drafter_types or args.scratch:
        args.usage_error("--targets and --drafters are taken as they are, without types")


def _models(
    args: argparse.Namespace, stack: ExitStack
) -> tuple[list[Variant], list[Variant], Variant | None]:
    """Returns targets, drafters and reference; temporary files are removed with `stack`."""
    from ..measure import sweep

    reference = None if args.reference is None else sweep.named([args.reference])[0]
    if args.targets:
        return sweep.named(args.targets), sweep.named(args.drafters), reference
    if args.scratch is not None and not args.scratch.is_dir():
        raise FileError(f"{args.scratch} is not a folder; create it first")
    made = Path(
        stack.enter_context(
            tempfile.TemporaryDirectory(
                prefix="gemtp-sweep-", dir=args.scratch, ignore_cleanup_errors=True
            )
        )
    )
    lists = []
    for name in ("target", "drafter"):
        folder = made / name
        folder.mkdir()
        types = getattr(args, f"{name}_types") or _TYPES.split(",")
        lists.append(sweep.quantized(getattr(args, name), types, folder, not args.quiet))
    return lists[0], lists[1], reference or sweep.named([args.target])[0]


def _types(text: str) -> list[str]:
    return text.split(",")
