"""Runs the fuzz targets: replays what each starts from and what was found, then looks for more.

    python tests/fuzz/run.py BUILD [--seconds N | --hours H] [--targets NAME ...] [--minimize]

BUILD is a tree built with GEMTP_FUZZ; the models and the growing corpora lie in BUILD/fuzz. The
targets in Python run if atheris is installed. Prints executions and edges of each target; with
--hours also their sums, over rounds in which each has its turn. A find is
kept in BUILD/fuzz/finds, and shown in base64 with the end of the log; with --minimize it is made
as small as a minute allows. Exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import corpus
from harness import TARGETS

HERE = Path(__file__).parent
_INPUT_SECONDS = 300  # for one input, on a machine that has other things to do
_SHOWN = 4096  # bytes of a find in the log
_TURN = 600  # seconds of a target, at most, before the next has its turn


@dataclass
class Target:
    name: str
    command: list[str]
    work: Path
    executions: int = 0  # in all turns
    edges: int = 0

    def __str__(self) -> str:
        return f"{self.name:12} {self.executions:14,} executions {self.edges:8,} edges"

    def count(self, log: str) -> None:
        """Counts what a run did, by its log: the final figure, or the latest one of a crash."""
        executed = re.findall(r"number_of_executed_units: (\d+)", log)
        executed += re.findall(r"^#(\d+)\s", log, re.M)[-1:]
        self.executions += int(executed[0]) if executed else 0
        self.edges = max([self.edges, *map(int, re.findall(r"cov: (\d+)", log))])

    @property
    def folders(self) -> list[str]:
        """The corpus, which grows, and what was found once."""
        found = HERE / "found" / self.name
        return [str(self.work / "corpus" / self.name), *([str(found)] if found.is_dir() else [])]

    def run(self, *options: str, inputs: list[str] | None = None) -> subprocess.CompletedProcess:
        finds = self.work / "finds"
        finds.mkdir(exist_ok=True)
        command = [*self.command, f"-artifact_prefix={finds}/{self.name}-", *options]
        command += [f"-timeout={_INPUT_SECONDS}", "-rss_limit_mb=4096"]
        environment = {**os.environ, "GEMTP_FUZZ_MODELS": str(self.work / "models")}
        return subprocess.run(
            [*command, *(self.folders if inputs is None else inputs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            errors="replace",
            check=False,
        )

    def find(self, log: str) -> Path | None:
        written = re.findall(r"Test unit written to (\S+)", log)
        return Path(written[-1]) if written else None

    def minimized(self, find: Path) -> Path:
        """Makes a find as small as a minute allows."""
        small = find.with_name(f"{find.name}.min")
        options = ["-minimize_crash=1", "-max_total_time=60", f"-exact_artifact_path={small}"]
        self.run(*options, inputs=[str(find)])
        return small if small.exists() else find


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    work = args.build / "fuzz"
    work.mkdir(exist_ok=True)
    corpus.main(work)
    targets = list(_targets(args, work))
    if not args.hours:
        turns = [_turn(target, args.seconds, args.minimize) for target in targets]
        return 0 if all(turns) else 1
    end = time.monotonic() + 3600 * args.hours
    seconds = max(1, min(_TURN, round(3600 * args.hours / max(1, len(targets)))))
    clean = True
    while time.monotonic() < end:
        for target in targets:
            clean &= _turn(target, seconds, args.minimize)
    for target in targets:
        print(f"in all: {target}")
    return 0 if clean else 1


def _targets(args: argparse.Namespace, work: Path) -> Iterator[Target]:
    in_core = {p.name.removeprefix("fuzz_"): p for p in args.build.glob("tests/fuzz/fuzz_*")}
    in_core = {name: p for name, p in in_core.items() if p.is_file() and os.access(p, os.X_OK)}
    for name in corpus.CORE_TARGETS:
        if _wanted(name, args) and name in in_core:
            yield Target(name, [str(in_core[name])], work)
    if importlib.util.find_spec("atheris") is None:
        print("the targets in Python are left out: atheris is not installed", flush=True)
        return
    for name in TARGETS:
        if _wanted(name, args):
            yield Target(name, [sys.executable, str(HERE / "harness.py"), name], work)


def _wanted(name: str, args: argparse.Namespace) -> bool:
    return not args.targets or name in args.targets


def _turn(target: Target, seconds: int, minimize: bool) -> bool:
    """Runs a target and prints what it did. Returns whether it found nothing."""
    # All inputs that are there run first, so one run is both.
    limit = f"-max_total_time={seconds}" if seconds else "-runs=0"
    run = target.run(limit, "-print_final_stats=1")
    target.count(run.stdout)
    print(target, flush=True)
    if run.returncode == 0:
        return True
    print(run.stdout[-6000:])
    find = target.find(run.stdout)
    if find is not None:
        find = target.minimized(find) if minimize else find
        data = find.read_bytes()
        print(f"{target.name}: a find of {len(data)} bytes, {find}")
        print(base64.b64encode(data[:_SHOWN]).decode(), flush=True)
    return False


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("build", type=Path, metavar="BUILD")
    parser.add_argument("--seconds", type=int, default=0, help="each target (default: replay only)")
    parser.add_argument("--hours", type=float, help="all targets, in turns")
    parser.add_argument("--targets", nargs="*", choices=[*corpus.CORE_TARGETS, *TARGETS])
    parser.add_argument("--minimize", action="store_true", help="make finds small")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
