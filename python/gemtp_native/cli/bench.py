"""`gemtp bench`: measures the speed and memory of a model on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ..base.whole_number import whole_number
from ..options import MAX_DRAFT, MAX_ROWS
from .options import (
    add_engine_options,
    add_report_options,
    add_target,
    check_outputs,
    draft_depth,
    engine_options,
    give_report,
)

_SECTIONS = ("bandwidth", "prefill", "decode", "rows", "draft", "generate")
_QUICK: dict[str, Any] = {
    "prompt": [64, 512],
    "context": [0, 1024],
    "rows": [1, 2, 4, 8, 16],
    "depths": [0, 1, 3, 7, "auto"],
    "tokens": 48,
    "runs": 3,
    "budget": 10.0,
}

MODELS = ("target", "drafter")  # arguments that may name a model by where it comes from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measures loading, prefill, decoding behind long contexts, passes over several rows, draft "
        "steps and whole generations, and the memory bandwidth they are up against. Everything "
        "that is compared is measured in turns; figures are medians."
    )
    add_target(parser)
    parser.add_argument(
        "--drafter", metavar="DRAFTER.gguf", help="its drafter, named likewise; or auto"
    )
    what = parser.add_argument_group("what to measure")
    names = ",".join(_SECTIONS)
    what.add_argument("--only", type=_sections, metavar="A,B", help=f"of {names}")
    what.add_argument("--skip", type=_sections, metavar="A,B", help="all sections but these")
    what.add_argument(
        "--prompt", type=_lengths, metavar="N,N", help="lengths to prefill (default: 64,512,2048)"
    )
    what.add_argument(
        "--context",
        type=_lengths,
        metavar="N,N",
        help="lengths to decode behind (default: 0,4096,16384)",
    )
    what.add_argument(
        "--rows",
        type=_lengths,
        metavar="N,N",
        help=f"of one pass, 1 to {MAX_ROWS}; also A-B (default: 1-{MAX_ROWS})",
    )
    what.add_argument(
        "--at", type=int, metavar="N", help="context of passes and draft steps (default: 64)"
    )
    what.add_argument(
        "--depths",
        type=_depths,
        metavar="N,N",
        help=f"of generations, 0 to {MAX_DRAFT} and auto; also A-B (default: 0,1,2,3,5,7,auto)",
    )
    what.add_argument("--tokens", type=int, metavar="N", help="of a generation (default: 128)")
    what.add_argument("--text", metavar="TEXT", help="prompt of the generations")
    how = parser.add_argument_group("how")
    how.add_argument("--runs", type=int, metavar="N", help="rounds of each (default: 5)")
    how.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="begin no further round of a group after this long (default: 60)",
    )
    how.add_argument("--quick", action="store_true", help="fewer lengths, shorter, three rounds")
    add_engine_options(how)
    add_report_options(parser, csv=True)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    if args.only and args.skip:
        args.usage_error("--only and --skip exclude each other")
    if args.json and args.csv == "-":
        args.usage_error("--json and --csv - both print to standard output")
    from ..measure import bench
    from ..measure.bench.render import CSV_COLUMNS

    check_outputs(args.csv, args.plot, sources=(args.target, args.drafter))
    if args.plot:
        bench.check_plot(args.plot)
    report = bench.run(
        args.target, args.drafter, bench.BenchSettings(**_settings(args)), _progress(args.quiet)
    )
    give_report(args, report, bench, CSV_COLUMNS)
    return 1 if report.identical is False else 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns keywords of Settings: options, else those of --quick, else the defaults."""
    chosen = dict(_QUICK) if args.quick else {}
    for name in ("prompt", "context", "rows", "at", "depths", "tokens", "text", "runs", "budget"):
        if (value := getattr(args, name)) is not None:
            chosen[name] = os.fsencode(value) if name == "text" else value
    for option, name in (("prompt", "prompts"), ("context", "contexts")):
        if option in chosen:
            chosen[name] = chosen.pop(option)
    sections = args.only or [s for s in _SECTIONS if s not in (args.skip or ())]
    return {**chosen, "sections": sections, **engine_options(args)}


def _progress(quiet: bool) -> Any:
    if quiet or not sys.stderr.isatty():
        return lambda _: None
    return lambda line: print(f"gemtp bench: {line}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- values of options


def _sections(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in _SECTIONS:
            raise argparse.ArgumentTypeError(
                f"{name!r} is not a section; they are {', '.join(_SECTIONS)}"
            )
    return names


def _lengths(text: str) -> list[int]:
    """Parses "1,4,8" or "1-4,8"."""
    numbers: list[int] = []
    for part in text.split(","):
        begin, dash, end = part.partition("-")
        low = whole_number(begin)
        high = whole_number(end) if dash else low
        if low is None or high is None or low > high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,2,4-8")
        if high - low > 1000:
            raise argparse.ArgumentTypeError(f"{part!r} is too long a range")
        numbers += range(low, high + 1)
    return numbers


def _depths(text: str) -> list[Any]:
    depths: list[Any] = []
    for part in text.split(","):
        for value in [part] if part == "auto" else map(str, _lengths(part)):
            depths.append(draft_depth(value))
    return depths
