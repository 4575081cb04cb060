"""Lets calls of the C library, of operator new and of Python's allocator fail, one after the other,
in public calls and commands (operations.py).

    python tests/faults/run.py LIBRARY [--operations NAME ...] [--kinds NAME ...] [--most N]

LIBRARY is libgemtp_faults.so, which the C++ tests build. Each operation has a process of its own.
In it every call of a kind fails in turn, or about --most of them, alone and together with all that
come after it; or a read is interrupted or short. What must hold of each:

- The operation returns what it usually does, or raises an exception of gemtp that is one sentence.
- Files of results are whole, and nothing lies beside them.
- The next call, in which nothing fails, returns the usual bytes.
- No file descriptor and no thread stays behind, nothing hangs, nothing crashes.

Exits with 1 if something does not hold.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import faulthandler
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import operations

import gemtp_native as gemtp

HANG = 60  # seconds
_MANY = 2**40  # calls: none fails
_SHORT = -1  # as in faults.cc: half of what was to be read or written


@dataclass(frozen=True)
class Kind:
    name: str
    number: int  # in faults.cc; -1 for Python's allocator
    errors: tuple[int, ...]
    harmless: tuple[int, ...] = ()  # after which everything must go on as usual


KINDS = [
    Kind("memory", 0, (errno.ENOMEM,)),
    Kind("map", 1, (errno.ENOMEM,)),
    Kind("open", 2, (errno.EMFILE, errno.EACCES)),
    Kind("status", 3, (errno.EIO,)),
    Kind("read", 4, (errno.EIO,), (errno.EINTR, _SHORT)),
    Kind("write", 5, (errno.ENOSPC,), (errno.EINTR, _SHORT)),
    Kind("sync", 6, (errno.EIO,)),
    Kind("close", 7, (errno.EIO,)),
    Kind("rename", 8, (errno.EACCES,)),
    Kind("thread", 9, (errno.EAGAIN,)),
    Kind("process", 10, (errno.EAGAIN,)),
    Kind("python memory", -1, (errno.ENOMEM,)),
]


class Faults:
    """The library that is loaded into this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.gemtp_faults_arm.argtypes = [
            ctypes.c_int, ctypes.c_int64, ctypes.c_int, ctypes.c_int,
        ]  # fmt: skip
        self._library.gemtp_faults_disarm.restype = ctypes.c_int64

    def arm(self, kind: Kind, n: int, error: int, all_from_there: bool) -> None:
        if kind.number < 0:
            import _testcapi

            _testcapi.set_nomemory(n, 0 if all_from_there else n + 1)
        else:
            self._library.gemtp_faults_arm(kind.number, n, error, all_from_there)

    def disarm(self, kind: Kind) -> int:
        """Returns how many calls were left until the one that fails."""
        if kind.number < 0:
            import _testcapi

            _testcapi.remove_mem_hooks()
            return 0
        left: int = self._library.gemtp_faults_disarm()
        return left


class Trial:
    """An operation, and what must hold of it."""

    def __init__(self, name: str, folder: Path):
        self._operation = operations.OPERATIONS[name]
        self._before = operations.BEFORE.get(name, lambda: None)
        self._folder, self._place = folder, folder.parent / "place"
        self._faults = Faults()
        for _ in range(3):
            self._before()
            self._expected = self._operation(folder)
        self._files = self._listing()
        self._descriptors, self._threads = _descriptors(), threading.active_count()
        self.problems: list[str] = []
        self.tried = self.failed = 0

    def count(self, kind: Kind) -> int:
        """Returns how many calls of a kind the operation makes."""
        if kind.number < 0:
            return 20_000  # nobody counts them
        self._before()
        self._faults.arm(kind, _MANY, 0, False)
        try:
            self._operation(self._folder)
        finally:
            left = self._faults.disarm(kind)
        return _MANY - left

    def run(self, kind: Kind, n: int, error: int, all_from_there: bool) -> None:
        where = f"{kind.name} {n} ({'short' if error == _SHORT else errno.errorcode[error]}"
        where += " from there)" if all_from_there else ")"
        self._place.write_text(where)
        faulthandler.dump_traceback_later(HANG, exit=True)
        problem = self._outcome(kind, n, error, all_from_there)
        problem = problem or self._left_behind()
        if problem:
            self.problems.append(f"{where}: {problem}")
        self.tried += 1

    def _outcome(self, kind: Kind, n: int, error: int, all_from_there: bool) -> str:
        self._before()
        self._faults.arm(kind, n, error, all_from_there)
        try:
            found = self._operation(self._folder)
        except BaseException as e:
            self._faults.disarm(kind)
            self.failed += 1
            if error in kind.harmless:
                return f"it raised {e!r}"
            # What Python's own library makes of that is its matter.
            return "" if kind.number < 0 else _unclear(e)
        self._faults.disarm(kind)
        return "" if found == self._expected else "it returned other bytes"

    def _left_behind(self) -> str:
        listing = self._listing()
        if listing != self._files:
            names = {
                n for n in listing.keys() | self._files if listing.get(n) != self._files.get(n)
            }
            return f"these files are others than before: {sorted(names)}"
        try:
            self._before()
            if self._operation(self._folder) != self._expected:
                return "the next call returned other bytes"
        except BaseException as e:
            return f"the next call raised {e!r}"
        if self._listing() != self._files:
            return "the next call left other files"
        if _descriptors() > self._descriptors:
            return f"{_descriptors() - self._descriptors} file descriptors stay open"
        if threading.active_count() > self._threads:
            return "a thread goes on"
        return ""

    def _listing(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self._folder)): path.read_bytes()
            for path in sorted(self._folder.rglob("*"))
            if path.is_file() and path.parent.name != "target"
        }


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _unclear(e: BaseException) -> str:
    """What is wrong with an exception as the answer to a failure; empty if nothing is."""
    if isinstance(e, operations.Failed):
        line = str(e).removesuffix("\n")
        if e.status != 1 or "\n" in line or not line.startswith("gemtp: error: "):
            return f"the command ended with {e.status} and said {line!r}"
        said = line
    elif isinstance(e, MemoryError | gemtp.Error):
        said = str(e)
    else:
        return f"it raised {e!r}"
    return f"it said {said!r}" if "internal" in said or "\n" in said else ""


def _chosen(count: int, most: int, random_numbers: random.Random) -> list[int]:
    if count <= most:
        return list(range(1, count + 1))
    first = list(range(1, most // 2 + 1))  # where every step differs
    return first + sorted(random_numbers.sample(range(first[-1] + 1, count + 1), most - len(first)))


def _plans(kind: Kind) -> Iterator[tuple[int, bool]]:
    for error in kind.errors + kind.harmless:
        yield error, False
        # Python itself does not get along without any memory.
        if kind.number >= 0 and error != errno.EINTR:
            yield error, True


def _in_this_process(name: str, folder: Path, kinds: list[Kind], most: int, seed: int) -> int:
    """Tries an operation. Prints a line for each kind, and a list of what does not hold at last."""
    warnings.simplefilter("ignore")
    os.environ.pop("LD_PRELOAD", None)  # not in processes that this one starts
    trial = Trial(name, folder)
    numbers = random.Random(seed)
    for kind in kinds:
        if kind.number < 0 and name in operations.STARTING_THREADS:
            continue
        count, tried, failed = trial.count(kind), trial.tried, trial.failed
        for error, all_from_there in _plans(kind):
            for n in _chosen(count, most, numbers):
                trial.run(kind, n, error, all_from_there)
        print(
            f"{name:18} {kind.name:14} {count:6} calls, {trial.tried - tried:6} failed, "
            f"{trial.failed - failed:6} exceptions",
            flush=True,
        )
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(trial.problems), flush=True)
    os._exit(0)  # of what ends with the interpreter nothing is to be tried here


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("--operations", nargs="+", choices=operations.OPERATIONS)
    parser.add_argument("--kinds", nargs="+", choices=[k.name for k in KINDS])
    parser.add_argument("--most", type=int, default=_MANY, metavar="N", help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    kinds = [k for k in KINDS if args.kinds is None or k.name in args.kinds]
    names = args.operations or list(operations.OPERATIONS)
    if args.folder:
        return _in_this_process(names[0], args.folder, kinds, args.most, args.seed)

    wrong = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "work"
        folder.mkdir()
        operations.make(folder)
        for operation in names:
            (folder.parent / "place").write_text("before anything failed")
            done = subprocess.run(
                [sys.executable, sys.argv[0], str(args.library), "--operations", operation,
                 "--folder", str(folder), "--most", str(args.most), "--seed", str(args.seed),
                 "--kinds", *(k.name for k in kinds)],
                env=os.environ | {"LD_PRELOAD": str(args.library.resolve())},
                capture_output=True, text=True, errors="replace",
            )  # fmt: skip
            *lines, last = done.stdout.splitlines() or [""]
            print("\n".join(lines), flush=True)
            if done.returncode:
                place = (folder.parent / "place").read_text()
                print(
                    f"{operation}: {place}: the process ended with {done.returncode}\n{done.stderr}"
                )
                wrong = True
                continue
            for problem in json.loads(last):
                print(f"{operation}: {problem}")
                wrong = True
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
