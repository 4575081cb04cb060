"""tools/try_gpu.sh: the report that it writes, and how it ends. Whatever it calls is a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "try_gpu.sh"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is for Linux")

# A program that makes what the one of its name would make, says what it was called with, and fails
# where it is called with $FAIL. Where that is "~texts", the texts of both devices are different.
PROGRAM = """#!/bin/sh
case "$FAIL $*" in
  [!~]*" generate "*) echo "the text";;
  *) echo "$(basename "$0") $*";;
esac
case "$(basename "$0") $*" in *"$FAIL"*) echo "it is broken" >&2; exit 3;; esac
install() { mkdir -p "$1"; shift; for name in "$@"; do ln -sf "$PROGRAM" "$name"; done; }
case "$(basename "$0") $*" in
  "python3 -m venv "*) install "$3/bin" "$3/bin/python" "$3/bin/gemtp";;
  "cmake --build "*) install "$2/tests/cpp" "$2/tests/cpp/gemtp_gpu_tests";;
esac
"""


def run(at: Path, fail: str = "nothing", sanitizer: bool = True) -> tuple[int, str]:
    """Returns the exit code and the report."""
    folder, programs = at / "a folder", at / "programs"
    programs.mkdir()
    program = programs / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    names = ["python3", "cmake", "nvidia-smi", *(["compute-sanitizer"] if sanitizer else [])]
    for name in names:
        (programs / name).symlink_to(program)
    done = subprocess.run(
        [SCRIPT, folder],
        env=os.environ
        | {"PATH": f"{programs}:/usr/bin:/bin", "PROGRAM": str(program), "FAIL": fail}
        | {"PAIR": "demo", "DEVICE": "cuda:1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    report = (folder / "report.md").read_text()
    assert report == done.stdout
    assert report.count("```") % 2 == 0
    assert report.splitlines()[-1] == f"Report: {folder / 'report.md'}"
    return done.returncode, report


def test_all_is_well(tmp_path) -> None:
    code, report = run(tmp_path)
    assert code == 0
    lines = report.splitlines()
    assert lines[0].startswith("# gemtp on a GPU, ")
    assert lines[1] == ""
    assert lines[2].startswith("- gemtp ")
    assert lines[4].startswith("- nvidia-smi --query-gpu=name,")
    assert lines[5:8] == ["", "| | | |", "|---|---|---|"]
    steps = [line.split(" | ")[0] for line in lines if " | passed | " in line]
    assert steps == [
        "| a Python environment",
        "| kernels for CUDA",
        "| package",
        "| tests' build",
        "| cuda:1 opens and proves that it is exact",
        "| kernels and passes",
        *(f"| compute-sanitizer {tool}" for tool in ("memcheck", "racecheck", "synccheck")),
        "| hashes on the CPU",
        "| the same hashes on the GPU",
        "| 512 tokens, greedy and sampled, on both",
    ]
    assert "$ gemtp bench demo --drafter demo --device cuda:1\ngemtp bench demo" in report
    logs = {log.name: log.read_text() for log in (tmp_path / "a folder" / "logs").iterdir()}
    assert "gemtp info --self-test cuda:1\n" in "".join(logs.values())
    assert (tmp_path / "a folder" / "bench.json").exists()


@pytest.mark.parametrize(
    ("fail", "steps"),
    [
        ("memcheck", ["compute-sanitizer memcheck"]),
        ("hash_outputs.py", ["hashes on the CPU", "the same hashes on the GPU"]),
        ("generate demo", ["512 tokens, greedy and sampled, on both"]),
        ("~texts", ["512 tokens, greedy and sampled, on both"]),
        ("cmake --build", ["tests' build", "kernels and passes"]),
    ],
)
def test_a_step_that_fails(tmp_path, fail: str, steps: list[str]) -> None:
    code, report = run(tmp_path, fail, sanitizer=fail == "memcheck")
    assert code == 1
    failed = [line for line in report.splitlines() if "**failed**" in line]
    assert [line.split(" | ")[0].removeprefix("| ") for line in failed] == steps
    assert "## The CPU beside it" in report
    assert ("compute-sanitizer | not here" in report) == (fail != "memcheck")


@pytest.mark.parametrize("fail", ["--device cuda:1 --json", "--device cpu --only"])
def test_a_measurement_that_fails(tmp_path, fail: str) -> None:
    assert run(tmp_path, fail)[0] == 1


@pytest.mark.parametrize("fail", ["-m venv", "cuda_kernels.py --out", "install -q .", "--self"])
def test_what_nothing_goes_on_without(tmp_path, fail: str) -> None:
    code, report = run(tmp_path, fail)
    assert code == 1
    assert report.count("**failed** (3; ") == 1
    assert "it is broken\n```" in report
    assert "kernels and passes" not in report


def test_nvcc_from_pypi(tmp_path) -> None:
    code, report = run(tmp_path, "--find-tools")
    assert code == 0
    assert "| nvcc from PyPI | passed" in report
