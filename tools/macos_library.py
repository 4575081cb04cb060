"""Builds the C library for macOS on Apple's chips, on any machine, and looks at what came out.

    python tools/macos_library.py --out build/macos

zig compiles and links it (pip install ziglang), without any SDK: Metal is loaded when it is first
asked for. The result has never run: it shows that all sources compile for that system, that the
library links against nothing but the system's own, that it exports the functions of gemtp.h, and
how large it is.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

from build_wheel import compilers

ROOT = Path(__file__).resolve().parent.parent
TARGET = "aarch64-macos.14.0"

SYMBOLS, LIBRARY = 0x2, 0xC  # load commands
EXPORTED, PRIVATE, KIND, DEFINED = 0x01, 0x10, 0x0E, 0x0E  # types of symbols


def build(out: Path) -> Path:
    """Returns the library."""
    out.mkdir(parents=True, exist_ok=True)
    options = {
        "CMAKE_SYSTEM_NAME": "Darwin",
        "CMAKE_SYSTEM_PROCESSOR": "arm64",
        "CMAKE_BUILD_TYPE": "Release",
        "GEMTP_CUDA": "OFF",
    }
    environment = os.environ | compilers(out, TARGET)
    configure = ["cmake", "-S", ROOT, "-B", out, "-G", "Ninja"]
    configure += [f"-D{name}={value}" for name, value in options.items()]
    for command in (configure, ["cmake", "--build", out, "--target", "gemtp"]):
        if subprocess.run(list(map(str, command)), env=environment).returncode:
            raise SystemExit(f"{command[0]} failed; what it said is above")
    return (out / "libgemtp.dylib").resolve()


def read(library: Path) -> tuple[set[str], set[str]]:
    """Returns the symbols that a library for 64-bit ARM exports, and the libraries it needs."""
    data = library.read_bytes()
    magic, processor, _, kind, commands = struct.unpack_from("<5I", data)
    if (magic, processor, kind) != (0xFEEDFACF, 0x0100000C, 6):
        raise SystemExit(f"{library} is no library for macOS on 64-bit ARM")
    exported: set[str] = set()
    needed: set[str] = set()

    def text(at: int) -> str:
        return data[at : data.index(b"\0", at)].decode()

    at = 32
    for _ in range(commands):
        command, size = struct.unpack_from("<2I", data, at)
        if command == SYMBOLS:
            first, count, names, _ = struct.unpack_from("<4I", data, at + 8)
            for i in range(count):
                name, type_ = struct.unpack_from("<IB", data, first + 16 * i)
                if type_ & EXPORTED and not type_ & PRIVATE and type_ & KIND == DEFINED:
                    exported.add(text(names + name).removeprefix("_"))
        elif command == LIBRARY:
            needed.add(text(at + struct.unpack_from("<I", data, at + 8)[0]))
        at += size
    return exported, needed


def declared() -> set[str]:
    """Returns the functions of gemtp.h."""
    header = (ROOT / "csrc" / "include" / "gemtp.h").read_text()
    return set(re.findall(r"^GEMTP_API [^;]*?\b(gemtp_\w+)\(", header, re.MULTILINE))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    library = build(parser.parse_args().out.resolve())
    exported, needed = read(library)
    missing = sorted(declared() - exported)
    foreign = sorted(n for n in needed if not n.startswith("/usr/lib/"))
    print(f"{library.name}: {library.stat().st_size / 1e6:.2f} MB, {len(declared())} functions")
    if missing:
        print(f"it lacks {', '.join(missing)}")
    if foreign:
        print(f"it needs {', '.join(foreign)}")
    return 1 if missing or foreign or not declared() else 0


if __name__ == "__main__":
    sys.exit(main())
