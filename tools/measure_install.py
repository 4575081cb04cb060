#!/usr/bin/env python3
"""Measures what installing a wheel costs: in distributions, bytes and seconds to a first token.

    python tools/measure_install.py dist/gemtp_native-*.whl [--extra serve ...]

Installs into a new virtual environment that nothing else is in, starts the command and runs
`gemtp demo` until the first token of its text arrives. See docs/packaging.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

from build_wheel import contents

RUNS = 5

# Prints each distribution's name, and the size of the files in its record.
_SIZES = """
import importlib.metadata, json
sizes = {}
for found in importlib.metadata.distributions():
    files = {f.locate().resolve() for f in found.files or ()}
    sizes[found.metadata["Name"]] = sum(f.stat().st_size for f in files if f.is_file())
print(json.dumps(sizes))
"""


class Problem(Exception):
    """An error, described in one sentence."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    parser.add_argument("--extra", action="append", default=[], metavar="NAME", help="may repeat")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        report = measure(args.wheel, args.extra)
    except (Problem, OSError) as e:
        print(f"measure_install: error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report) if args.json else table(report))
    return 0


def measure(wheel: Path, extras: list[str]) -> dict[str, Any]:
    if not wheel.is_file():
        raise Problem(f"{wheel} is no file")
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "env"
        venv.create(environment, with_pip=True)
        python, gemtp = environment / "bin" / "python", environment / "bin" / "gemtp"
        ours = set(_sizes(python))  # pip and its dependencies
        what = f"{wheel.resolve()}[{','.join(extras)}]" if extras else str(wheel.resolve())
        begin = time.perf_counter()
        _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", what)
        install = time.perf_counter() - begin
        installed = {name: n for name, n in _sizes(python).items() if name not in ours}
        return {
            "wheel": wheel.name,
            "extras": extras,
            "wheel_bytes": wheel.stat().st_size,
            "wheel_contents": dict(contents(wheel)),
            "install_seconds": install,
            "installed_bytes": installed,
            "seconds": {
                "python -c pass": _median(python, "-c", "pass"),
                "import gemtp_native": _median(python, "-c", "import gemtp_native"),
                "gemtp --version": _median(gemtp, "--version"),
                "gemtp generate --help": _median(gemtp, "generate", "--help"),
                "gemtp demo, first token": statistics.median(
                    _first_output(gemtp, "demo", "--runs", "1") for _ in range(RUNS)
                ),
            },
        }


def _sizes(python: Path) -> dict[str, int]:
    sizes: dict[str, int] = json.loads(_run(python, "-c", _SIZES))
    return sizes


def _median(*command: str | Path) -> float:
    seconds = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        _run(*command)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _first_output(*command: str | Path) -> float:
    """Returns seconds until a command writes; the demo writes nothing before its first token."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment()) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - begin
        process.stdout.read()
    if not first or process.returncode != 0:
        raise Problem(f"{' '.join(map(str, command[1:]))} failed; what it said is above")
    return seconds


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=_environment())
    if done.returncode != 0:
        words = " ".join(map(str, command[1:4]))
        raise Problem(f"{words} failed; what it said is above")
    return done.stdout


def _environment() -> dict[str, str]:
    """Returns this environment without variables that would add other packages."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def table(report: dict[str, Any]) -> str:
    installed = report["installed_bytes"]
    parts = ", ".join(f"{k} {_mega(n)}" for k, n in report["wheel_contents"].items())
    lines = [
        f"{report['wheel']}: {_mega(report['wheel_bytes'])} ({parts})",
        f"pip install: {report['install_seconds']:.1f} s, {len(installed)} distributions, "
        f"{_mega(sum(installed.values()))}",
    ]
    for name, size in sorted(installed.items(), key=lambda item: -item[1]):
        lines.append(f"  {name:<20} {_mega(size):>9}")
    lines.append(f"seconds, median of {RUNS}:")
    for name, seconds in report["seconds"].items():
        lines.append(f"  {name:<24} {seconds:6.3f}")
    return "\n".join(lines)


def _mega(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


if __name__ == "__main__":
    sys.exit(main())
