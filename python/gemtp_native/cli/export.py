"""`gemtp export`: converts the description of a pair for other engines."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from ..base.json_text import json_text
from ..errors import ArgumentError
from ..export import (
    DEFAULT_ACCEPTANCE,
    DEFAULT_DEPTH,
    ENGINES,
    Configuration,
    Export,
    Sampling,
    Source,
    export,
    load,
    save,
)
from ..export.configuration import changed, check, source_of
from ..options import OPTIONS
from .options import add_draft_option, add_number_option

_FILE = Path("gemtp.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Prints the command line, or for transformers the script, with which another engine runs "
        "the pair that gemtp.json describes; what that engine cannot express goes to standard "
        "error."
    )
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help=f"(default: {_FILE}, unless --target)"
    )
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--to", choices=tuple(ENGINES), help="print it for this engine")
    work.add_argument("--init", action="store_true", help="write FILE from the options below")
    group = parser.add_argument_group("in place of what FILE says")
    for name in ("target", "drafter"):
        group.add_argument(
            f"--{name}",
            action="append",
            metavar="MODEL",
            help="hub id, folder, file.gguf or file.litertlm; repeat it to give several forms",
        )
    add_draft_option(group, "tokens to draft a round")
    group.add_argument("--context", type=int, metavar="N", help="tokens of prompt and answer")
    group.add_argument("--threads", type=int, metavar="N")
    group.add_argument("--kv-type", choices=("f16", "f32"), help="of the K/V cache")
    group = parser.add_argument_group("sampling, in place of what FILE says")
    for name in asdict(Sampling()):
        # Without its help, because the file does not allow -1.
        add_number_option(group, OPTIONS[name]._replace(help=""), said="what FILE says")
    parser.add_argument(
        "--acceptance",
        type=float,
        default=DEFAULT_ACCEPTANCE,
        metavar="P",
        help="how often a draft is right: decides the depth where draft is auto and a profile is "
        f"saved (default: %(default)s; without a profile the depth is {DEFAULT_DEPTH})",
    )
    parser.add_argument("--force", action="store_true", help="--init replaces an existing file")
    parser.add_argument("--json", action="store_true", help="command, text and notes as JSON")
    parser.add_argument("--quiet", action="store_true", help="no notes on standard error")


def run(args: argparse.Namespace) -> int:
    if args.init:
        return _init(args)
    if args.file is None and args.target is not None:
        configuration = _from_options(args)
    else:
        configuration = _with_options(load(args.file or _FILE), args)
    result = export(configuration, args.to, args.acceptance)
    if args.json:
        print(json_text(asdict(result)))
        return 0
    sys.stdout.write(result.text)
    if not args.quiet:
        sys.stdout.flush()
        _say(result)
    return 0


def _init(args: argparse.Namespace) -> int:
    if args.target is None:
        raise ArgumentError("--init needs --target: a hub id, a folder or a file.")
    path = args.file or _FILE
    save(_from_options(args), path, args.force)
    if args.json:
        print(json_text({"file": str(path)}))
    elif not args.quiet:
        print(f"{path} is written; gemtp export --to ENGINE reads it.")
    return 0


def _from_options(args: argparse.Namespace) -> Configuration:
    return _with_options(Configuration(Source()), args)


def _with_options(configuration: Configuration, args: argparse.Namespace) -> Configuration:
    values = {name: getattr(args, name) for name in ("draft", "context", "threads", "kv_type")}
    for name in ("target", "drafter"):
        given = getattr(args, name)
        values[name] = None if given is None else source_of(given)
    sampling = {name: getattr(args, name) for name in asdict(Sampling())}
    configuration = changed(configuration, sampling, **values)
    check(configuration, "gemtp export")
    return configuration


def _say(result: Export) -> None:
    print(f"# options of {result.written_for}", file=sys.stderr)
    for note in result.notes:
        print(f"# {note.key}: {note.text}", file=sys.stderr)
