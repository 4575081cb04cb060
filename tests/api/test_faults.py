"""Calls of the C library, of operator new and of Python's allocator fail beneath the public API and
the commands: tests/faults/run.py, here with a sample of each kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "tests" / "faults"
OPERATIONS = [
    *("open_and_generate", "generate", "stream", "tokenize", "reply", "structured", "template"),
    *("session", "score", "convert", "quantize", "imatrix", "perplexity", "inspect", "export"),
    *("complete", "info", "structured anew", "template anew"),
]


@pytest.fixture(scope="module")
def library() -> Path:
    build = os.environ.get("GEMTP_C_BUILD")
    if not build:
        pytest.skip("GEMTP_C_BUILD names no build of the C++ tests, which have the library")
    path = ROOT / build / "tests" / "cpp" / "libgemtp_faults.so"
    if not path.exists():
        pytest.skip("that build has no library whose calls fail")
    return path


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_fails_ends_in_a_sentence_and_leaves_nothing(library, name):
    done = subprocess.run(
        [sys.executable, FAULTS / "run.py", library, "--operations", name, "--most", "8"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [int(line.split("calls,")[1].split()[0]) for line in done.stdout.splitlines()]
    assert sum(counts) > 20


def test_all_operations_are_tried():
    listed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, operations; print(json.dumps([*operations.OPERATIONS]))",
        ],
        cwd=FAULTS,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert json.loads(listed.stdout) == OPERATIONS


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "(folder / 'left').open('xb').close(); sync(); (folder / 'left').unlink()",
            "files",
        ),
        ("held.append(open(os.devnull)); sync(); held.pop().close()", "descriptor"),
        ("said.append(1); sync(); said.pop()", "the next call"),
        ("os.fsync(file)", "OSError"),
        ("try: os.fsync(file)\n    except OSError: return b'other'", "other bytes"),
        ("try: os.fsync(file)\n    except OSError: os.abort()", "ended with"),
    ],
)
def test_it_notices(library, tmp_path, body, problem):
    """An operation that does wrong where a file cannot be synced."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""import os, sys
sys.path.insert(0, {str(FAULTS)!r})
import gemtp_native as gemtp, operations, run
held, said = [], []
def sync():
    try: os.fsync(file)
    except OSError: raise gemtp.FileError("it cannot be written") from None
def operation(folder):
    {body}
    return bytes(said)
operations.OPERATIONS["wrong"] = operation
file = os.open({str(tmp_path / "synced")!r}, os.O_CREAT | os.O_RDWR)
sys.exit(run.main())
"""
    )
    done = subprocess.run(
        [sys.executable, script, library, "--operations", "wrong", "--kinds", "sync"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert problem in done.stdout
