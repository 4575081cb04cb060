"""`gemtp cluster`: makes an ordered head for a drafter with a plain one."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..base.input_file import read_input
from ..base.json_text import json_text
from ..errors import ArgumentError
from ..measure.text import size_text
from .options import add_machine_options, machine_options
from .progress import Bars

MODELS = ("target", "drafter")  # arguments that may name a model by where it comes from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes a drafter with an ordered head: tokens in clusters of one size, of which a draft "
        "step looks at the best few only. Tensors stay as they are, and programs that know no "
        "ordered head read the new file as the old one."
    )
    parser.add_argument("drafter", metavar="DRAFTER.gguf")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.gguf")
    parser.add_argument(
        "--centroids", type=int, metavar="N", help="clusters (default: 2048 for Gemma 4's tokens)"
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="clusters a draft step looks at (default: 32)"
    )
    group = parser.add_argument_group("made for the states that occur, and measured on them")
    group.add_argument("--target", metavar="TARGET.gguf", help="runs the text with the drafter")
    group.add_argument("--text", type=Path, metavar="FILE", help="of the kind that will be written")
    group.add_argument(
        "--positions", type=int, default=4096, metavar="N", help="tokens of it (default: 4096)"
    )
    add_machine_options(group)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.add_argument(
        "--replace", action="store_true", help="drop an ordered head that the file has already"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def run(args: argparse.Namespace) -> int:
    from ..make.cluster import ClusterReport, ClusterSettings, cluster

    if args.positions < 64:
        raise ArgumentError(f"--positions is {args.positions}; 64 is the least to measure anything")
    settings = ClusterSettings(
        centroids=args.centroids,
        top_k=args.top_k,
        seed=args.seed,
        positions=args.positions,
        replace=args.replace,
        **machine_options(args),
    )
    text = None if args.text is None else read_input(args.text, pipe=True)
    with Bars(args.quiet) as bars:
        report: ClusterReport = cluster(args.drafter, args.out, args.target, text, settings, bars)
    if args.json:
        print(json_text(report.as_json()))
        return 0
    print(
        f"{report.out}: {report.centroids} clusters of {report.cluster_size} tokens, the best "
        f"{report.top_k} are looked at; a draft step reads {size_text(report.read_after)} of the "
        f"head instead of {size_text(report.read_before)}"
    )
    of = (
        f"draft tokens that stay the same, at {report.measured:,} draft steps of the text's end"
        if report.states == "text"
        else f"a guess from {report.measured:,} rows of the head (--target and --text measure it)"
    )
    print(f"{of}:")
    for k, share in report.same.items():
        before = ""
        if report.replaced is not None and k in report.replaced:
            before = f"  (the {report.replaced_centroids} of before: {report.replaced[k]:.1%})"
        print(f"  top {k:<4} {share:.1%}{before}")
    return 0
