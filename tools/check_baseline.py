#!/usr/bin/env python3
"""Checks that a library runs on every x86-64 processor: newer instructions in kernel tables alone.

    python tools/check_baseline.py LIBRARY.so [LIBRARY.so ...]

Disassembles each library (objdump, from binutils) and names the functions that hold instructions
which baseline x86-64 (SSE2) does not have, unless they come from a file of csrc/backend/cpu/ that
is compiled for an instruction set and chosen at run time. Which file a function comes from is in
the symbol table, so a stripped library is refused. Exit code 1: there are such functions.
"""

from __future__ import annotations

import argparse
import bisect
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Files compiled with their own flags; all their symbols except the table are local.
TABLES = frozenset({"avx2.cc", "avxvnni.cc", "avx512.cc", "avx512vnni.cc"})

# Prefixes that may stand before an opcode: segments, operand and address size, lock, repeat.
_LEGACY_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3})
_VEX_EVEX_XOP = frozenset({0xC4, 0xC5, 0x62})  # as opcodes; XOP's 0x8F is found by name
_NEWER = re.compile(
    r"h(add|sub)p[sd]|addsubp[sd]|lddqu|mov(d|sh|sl)dup|fisttp[sl]*"  # SSE3; later sets: by opcode
    r"|popcnt[wlq]?|lzcnt[wlq]?|rd(rand|seed)[wlq]?|ad[co]x[lq]?|cmpxchg16b"
    r"|movnts[sd]|extrq|insertq|xgetbv|xsave\w*|xrstor\w*|xtest|xbegin|xend|sha\w+"
)
# dispatch.cc asks which registers the system saves, after cpuid has reported that this is possible.
_ALLOWED = frozenset(
    {
        ("_ZN5gemtp16runnable_kernelsEv", "xgetbv"),
        ("_ZN5gemtp12_GLOBAL__N_16detectEv", "xgetbv"),  # if not inlined into the former
    }
)

_FUNCTION = re.compile(r"^([0-9a-f]+) <(.+)>:$")
_INSTRUCTION = re.compile(r"^\s+([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t?(.*)$")


class Problem(Exception):
    """An obstacle, described in one sentence."""


@dataclass
class Report:
    functions: int = 0
    in_tables: int = 0
    newer: dict[str, str] = field(default_factory=dict)  # function -> its first newer instruction


def check(library: Path) -> Report:
    """Checks every function of a library that is not part of a kernel table."""
    sources = _Sources(_lines("readelf", "--symbols", "--wide", library))
    if not sources.known & TABLES:
        raise Problem(
            f"{library} names no source file of a kernel table: "
            "it is stripped, or not built for x86-64"
        )
    report = Report()
    function, source = "", None
    for line in _lines("objdump", "--disassemble", "--wide", library):
        if begin := _FUNCTION.match(line):
            function, source = begin[2], sources.at(int(begin[1], 16))
            report.functions += 1
            report.in_tables += source in TABLES
        elif source not in TABLES and (found := _INSTRUCTION.match(line)):
            code, text = bytes.fromhex(found[2]), found[3]
            if is_newer(code, text) and (function, text.strip()) not in _ALLOWED:
                report.newer.setdefault(function, text.strip())
    return report


def is_newer(code: bytes, text: str) -> bool:
    """Whether baseline x86-64 lacks an instruction, given its bytes and its assembler text."""
    at = 0
    while at < len(code) and code[at] in _LEGACY_PREFIXES:
        at += 1
    if at < len(code) and code[at] in _VEX_EVEX_XOP:
        return True
    if at < len(code) and code[at] & 0xF0 == 0x40:  # REX
        at += 1
    if code[at : at + 2] in (b"\x0f\x38", b"\x0f\x3a"):  # the maps of SSSE3, SSE4, AES, SHA, MOVBE
        return True
    words = text.split()
    name = next((w for w in words if w not in ("rep", "repz", "lock", "notrack", "data16")), "")
    return _NEWER.fullmatch(name) is not None


class _Sources:
    """The source files of local functions; global symbols have none."""

    def __init__(self, lines: Iterable[str]):
        self.known: set[str] = set()
        ranges = []
        source = ""
        for line in lines:
            fields = line.split()
            if len(fields) < 7 or not fields[0][:-1].isdigit():
                continue
            _, value, size, kind, binding = fields[:5]
            if kind == "FILE":  # the local symbols after it belong to this file
                source = Path(fields[7]).name if len(fields) > 7 else ""
                self.known.add(source)
            elif kind == "FUNC" and binding == "LOCAL":
                begin = int(value, 16)
                ranges.append((begin, begin + int(size, 0), source))
        ranges.sort()
        self._begins = [begin for begin, _, _ in ranges]
        self._ranges = ranges

    def at(self, address: int) -> str | None:
        at = bisect.bisect_right(self._begins, address) - 1
        if at < 0:
            return None
        _, end, source = self._ranges[at]
        return source if address < end else None


def _lines(tool: str, *args: str | Path) -> Iterator[str]:
    """Yields the lines that a tool prints about the file that is its last argument."""
    try:
        process = subprocess.Popen(
            [tool, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        raise Problem(f"{tool} is missing; Debian has it in binutils") from None
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        yield from process.stdout
        complaint = process.stderr.read()
    if process.returncode != 0:
        raise Problem(f"{args[-1]}: {' '.join(complaint.split()) or f'{tool} failed'}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("libraries", type=Path, nargs="+", metavar="LIBRARY.so")
    args = parser.parse_args(argv)
    status = 0
    for library in args.libraries:
        try:
            report = check(library)
        except Problem as e:
            print(f"check_baseline: error: {e}", file=sys.stderr)
            return 1
        others = report.functions - report.in_tables
        print(f"{library.name}: {report.in_tables} functions in kernel tables, {others} others")
        for function, text in report.newer.items():
            print(f"  {function}: {text}")
        status |= bool(report.newer)
    print("only baseline x86-64 outside of kernel tables" if not status else "NOT BASELINE")
    return status


if __name__ == "__main__":
    sys.exit(main())
