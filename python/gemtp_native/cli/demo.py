"""`gemtp demo`: the shipped pair, with and without its drafter."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.counted import counted
from ..base.json_text import json_text
from ..base.whole_number import whole_number
from ..errors import FileError
from .options import add_draft_option, add_machine_options, machine_options
from .streams import has_colours
from .text import acceptance_table

if TYPE_CHECKING:
    from ..model import Model, Output, Stats, Token

PROMPT = '''\
class Queue:
    """A queue of tasks, oldest first."""

    def __init__(self, maxsize=0):
'''

FEWEST_RUNS, MOST_RUNS, SECONDS = 5, 40, 2.0  # of each kind, if no number is given

_GREEN, _PLAIN = "\x1b[32m", "\x1b[0m"
_OPEN, _CLOSE = "‹", "›"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Completes a piece of Python code with the pair that the package ships, marks the tokens "
        "that had been guessed, measures both ways of decoding and compares their texts. "
        "Exit code 1 if the texts differ."
    )
    parser.add_argument("--prompt", help="text to complete (default: the beginning of a class)")
    parser.add_argument("--max-tokens", type=int, default=192, metavar="N", help="(default: 192)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.7,
        metavar="X",
        help="(default: 0.7; a small model repeats itself at 0, and every guess is right)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument(
        "--runs", type=_positive, metavar="N", help="of each kind (default: 2 seconds' worth)"
    )
    add_draft_option(parser, "(default: auto)", "auto")
    add_machine_options(parser)
    parser.add_argument("--target", type=Path, metavar="TARGET.gguf", help="another target")
    parser.add_argument("--drafter", type=Path, metavar="DRAFTER.gguf", help="and its drafter")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(usage_error=parser.error)


@dataclass
class Runs:
    """The same generation, several times."""

    outputs: list[Output] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        return [o.stats.tokens_per_second for o in self.outputs]

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def as_json(self) -> dict[str, Any]:
        return {"tokens_per_second": self.rate, "runs": self.rates}


def run(args: argparse.Namespace) -> int:
    from ..model import Model

    target, drafter = _files(args)
    model = Model(target, drafter=drafter, **machine_options(args))
    prompt = PROMPT if args.prompt is None else os.fsencode(args.prompt)

    options = {
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "seed": args.seed,
    }

    def generate(draft: Any) -> Output:
        return model.generate(prompt, draft=draft, **options)

    if not args.json:
        _show_completion(model, prompt, draft=args.draft, **options)
    plain, drafted = Runs(), Runs()
    begin = time.monotonic()
    while not _enough(args.runs, len(plain.outputs), time.monotonic() - begin):
        # Interleaved, so that a busy moment of the machine affects both.
        plain.outputs.append(generate(0))
        drafted.outputs.append(generate(args.draft))
    identical = len({(o.text, *o.tokens) for o in plain.outputs + drafted.outputs}) == 1
    if args.json:
        print(json_text(_as_json(model, plain, drafted, identical)))
    else:
        _print_figures(plain, drafted, identical, options)
    return 0 if identical else 1


def _enough(wanted: int | None, runs: int, seconds: float) -> bool:
    if wanted is not None:
        return runs >= wanted
    return runs >= MOST_RUNS or (runs >= FEWEST_RUNS and seconds >= SECONDS)


def _files(args: argparse.Namespace) -> tuple[Path, Path]:
    from ..model import demo_models

    if (args.target is None) != (args.drafter is None):
        args.usage_error("--target and --drafter go together")
    if args.target is not None:
        return args.target, args.drafter
    for path in (files := demo_models()):
        if not path.is_file():
            raise FileError(f"{path} is missing: this installation has no demo models")
    return files


def _positive(text: str) -> int:
    if number := whole_number(text):
        return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


# ---------------------------------------------------------------- the completion


class Marker:
    """Writes tokens to stdout, drafted ones in green or in brackets."""

    def __init__(self, colour: bool):
        self._begin, self._end = (_GREEN, _PLAIN) if colour else (_OPEN, _CLOSE)
        self._marked = False
        self.legend = (
            f"{self._begin}{'like this' if colour else '...'}{self._end}: "
            "guessed by the drafter or looked up in the text, confirmed by the target"
        )

    def write(self, token: Token) -> None:
        if not token.text:
            return
        if token.drafted != self._marked:
            sys.stdout.write(self._begin if token.drafted else self._end)
            self._marked = token.drafted
        sys.stdout.write(token.text)

    def close(self) -> None:
        if self._marked:
            sys.stdout.write(self._end)
        self._marked = False


def _show_completion(model: Model, prompt: str | bytes, **options: Any) -> None:
    marker = Marker(has_colours())
    text = prompt if isinstance(prompt, str) else prompt.decode("utf-8", "replace")
    sys.stdout.write(text)
    with model.stream(prompt, **options) as stream:
        try:
            for step in stream.steps():
                for token in step:
                    marker.write(token)
                sys.stdout.flush()
        finally:
            marker.close()
            print(flush=True)
    print(f"\n{marker.legend}\n")


# ---------------------------------------------------------------- figures


def _pooled(runs: Runs) -> Stats:
    """Returns the statistics of the last run, which represents all: they accept the same drafts."""
    return runs.outputs[-1].stats


def _speedup(plain: Runs, drafted: Runs) -> float | None:
    """Median of the ratios of neighbouring runs, which ran under similar conditions."""
    if not all(plain.rates):
        return None
    return statistics.median(b / a for a, b in zip(plain.rates, drafted.rates, strict=True))


def _print_figures(plain: Runs, drafted: Runs, identical: bool, options: dict[str, Any]) -> None:
    stats = _pooled(drafted)
    count = len(plain.outputs)
    how = f"temperature {options['temperature']:g}, seed {options['seed']}"
    runs = f"medians of {counted(count, 'interleaved run')}"
    print(f"{counted(stats.tokens, 'token')} at {how}; {runs}:")
    print(f"  plain    {plain.rate:8.1f} tokens/s")
    speedup = _speedup(plain, drafted)
    ratio = "" if speedup is None else f"   {speedup:.2f} times plain"
    print(f"  drafted  {drafted.rate:8.1f} tokens/s{ratio}")
    if stats.drafted:
        print(f"\n{acceptance_table(stats)}")
    same = "the texts of all runs are the same bytes"
    print(f"\n{same if identical else 'THE TEXTS DIFFER: this is a bug, please report it'}")


def _as_json(model: Model, plain: Runs, drafted: Runs, identical: bool) -> dict[str, Any]:
    from ..model import system_info

    stats = _pooled(drafted)
    return {
        "identical": identical,
        "tokens": stats.tokens,
        "plain": plain.as_json(),
        "drafted": drafted.as_json(),
        "speedup": _speedup(plain, drafted),
        "rounds": stats.rounds,
        "acceptance": [
            {"draft": depth, "proposed": proposed, "accepted": accepted}
            for depth, (proposed, accepted) in enumerate(
                zip(stats.drafted_at, stats.accepted_at, strict=True), start=1
            )
        ],
        "text": plain.outputs[0].text,
        "machine": {
            **system_info(),
            "device": model.device,
            "isa": model.isa,
            "threads": model.threads,
        },
    }
