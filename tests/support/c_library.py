"""Installs the C library and builds programs against it.

GEMTP_C_BUILD names a build folder: cmake -S . -B build && cmake --build build
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "tools" / "examples"
BUILD = os.environ.get("GEMTP_C_BUILD")

needs_build = pytest.mark.skipif(
    BUILD is None or not all(map(shutil.which, ("cmake", "cc", "c++"))),
    reason="GEMTP_C_BUILD names no build of the C library, or cmake and compilers are missing",
)


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Runs a command and returns its standard output."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        timeout=300,
        check=False,
    )
    output = done.stdout.decode()
    assert done.returncode == 0, f"{command}\n{output[-4000:]}{done.stderr.decode()[-4000:]}"
    return output


def install(prefix: Path) -> Path:
    assert BUILD is not None
    run("cmake", "--install", BUILD, "--prefix", prefix)
    return prefix


def build_examples(prefix: Path, folder: Path) -> Path:
    """Builds the examples with find_package, against the installed library."""
    run("cmake", "-S", EXAMPLES, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", folder)
    return folder
